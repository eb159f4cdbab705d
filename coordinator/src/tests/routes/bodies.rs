//! Bodies as people send them: whatever is wrong, the error message is this project's own.

use axum::http::StatusCode;
use ops_catalog::text::FOREIGN_PHRASES;

use crate::tests::harness::Farm;
use crate::token::Role;

#[tokio::test]
async fn no_body_is_refused_in_a_librarys_words() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Admin).await;
    let bodies = [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{\"a\": 1}",
        "{\"name\": 1}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"conv2d\": {\"out\": 1.5, \"kernel\": 3}}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": \"nothing\"}]}",
        "{\"hardware_id\": \"x.cpu\", \"networks\": [{\"layers\": 1}]}",
        "{\"hardware_id\": \"x.cpu\", \"network\": {\"layers\": [7]}}",
        "{\"hardware_id\": \"x.cpu\", \"network\": 1, \"network\": 2}",
        "{\"hardware_id\": 7}",
        "{\"hardware_id\": \"x.cpu\", \"remeasure\": \"yes\"}",
        "{'hardware_id': 1}",
        "{\"hardware_id\": \"X y\"}",
        "\u{1f}\u{8b}",
    ];
    for path in ["/v1/ops", "/v1/requests", "/v1/predict", "/v1/agents"] {
        for body in bodies {
            let answer = farm
                .post(path)
                .token(&token)
                .header("content-type", "application/json")
                .text(body)
                .send()
                .await;
            let said = answer.shown();
            assert!(answer.status.is_client_error(), "{path}: {body:?}: {said}");
            for phrase in FOREIGN_PHRASES {
                assert!(!said.contains(phrase), "{path}: {body:?}: `{phrase}` is in: {said}");
            }
        }
    }
    for path in
        ["/v1/agents?limit=ten", "/v1/agents?limit=1.5", "/v1/agents?page=2", "/v1/requests/42"]
    {
        let answer = farm.get(path).token(&token).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        for phrase in FOREIGN_PHRASES {
            assert!(!answer.shown().contains(phrase), "{path}: {}", answer.shown());
        }
    }
}

/// A page of another site can make a browser call a name that its own DNS maps to this machine.
#[tokio::test]
async fn what_is_open_here_is_not_open_to_names_of_others() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let ask = |host: &'static str| farm.get("/v1/tables").header("host", host);
    assert_eq!(ask("127.0.0.1:8700").send().await.status, StatusCode::OK);
    assert_eq!(ask("rebound.example:8700").send().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("rebound.example:8700").token(&token).send().await.status, StatusCode::OK);
}
