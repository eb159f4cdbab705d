//! Who may call what. A handler names its kind of caller in its arguments, and everything else about
//! tokens is here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use headers::Header as _;
use headers::authorization::{Authorization, Bearer};

use super::error::ApiError;
use crate::app::App;
use crate::store::{Actor, Agent, Found, Holder};
use crate::token::{Role, Token};

/// How proxies name the client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Kinds of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// See tables, lists and predictions.
    Read,
    /// Ask for measurements and submit ops.
    Ask,
    /// Enrol agents.
    Enrol,
    /// Work as an agent.
    Work,
    /// Host the farm: see and revoke tokens, read the audit log.
    Host,
}

impl Access {
    /// The table of roles.
    fn is_open_to(self, role: Role) -> bool {
        match self {
            Access::Read => matches!(role, Role::Researcher | Role::Admin | Role::Agent),
            Access::Ask => matches!(role, Role::Researcher | Role::Admin),
            Access::Enrol => matches!(role, Role::Enroll | Role::Admin),
            Access::Work => role == Role::Agent,
            Access::Host => role == Role::Admin,
        }
    }

    /// What one needs, and how to get it.
    fn remedy(self) -> &'static str {
        match self {
            Access::Read | Access::Ask => {
                "this needs a researcher's token: make one on the coordinator's machine with \
                 `latlas-coordinator token create --role researcher`, and send it as `Authorization: \
                 Bearer TOKEN` (for `latlas`: LATLAS_TOKEN)"
            }
            Access::Enrol => {
                "this needs an enrol token: make one on the coordinator's machine with \
                 `latlas-coordinator token create --role enroll`, and give it to `latlas-agent run \
                 --enroll-token-file`"
            }
            Access::Work => {
                "this needs the credential that the agent got when it was enrolled: enrol the agent \
                 again if it is lost"
            }
            Access::Host => {
                "this needs an admin's token: make one on the coordinator's machine with \
                 `latlas-coordinator token create --role admin`, and send it as `Authorization: Bearer \
                 TOKEN` (for `latlas`: LATLAS_TOKEN)"
            }
        }
    }
}

/// The caller, whose token is good for this.
async fn holder(app: &App, parts: &Parts, access: Access) -> Result<Holder, ApiError> {
    let Some(header) = parts.headers.get(header::AUTHORIZATION) else {
        return Err(ApiError::Unauthorized(format!("there is no token; {}", access.remedy())));
    };
    let holder = known(app, parts, header, access).await?;
    if access.is_open_to(holder.role) {
        return Ok(holder);
    }
    let role = holder.role.name();
    Err(ApiError::Forbidden(format!("the token has the role {role}; {}", access.remedy())))
}

/// The caller, whose token is in force, whatever it is good for.
async fn known(
    app: &App,
    parts: &Parts,
    header: &HeaderValue,
    access: Access,
) -> Result<Holder, ApiError> {
    let Ok(authorization) = Authorization::<Bearer>::decode(&mut std::iter::once(header)) else {
        return Err(ApiError::Unauthorized(format!(
            "the Authorization header is not `Bearer TOKEN`; {}",
            access.remedy()
        )));
    };
    let token = Token::from_client(authorization.token().trim());
    let guesses = |wait| ApiError::TooMany {
        cause: "too many calls with tokens that are not known came from this address",
        wait,
    };
    let calls = |wait| ApiError::TooMany { cause: "this token calls too often", wait };
    let (hash, now, address) = (token.hash(), Instant::now(), address(app, parts));
    app.limits().may_try(address, &hash, now).map_err(guesses)?;
    match app.store().find_token(&token, app.now()).await? {
        Found::InForce(holder) => {
            app.limits().found(hash, now).map_err(calls)?;
            Ok(*holder)
        }
        // A token that has ended was issued once, so it is not a guess.
        Found::Ended => {
            app.limits().found(hash, now).map_err(calls)?;
            Err(ended(access))
        }
        Found::Unknown => {
            app.limits().guessed(address, now).map_err(guesses)?;
            tracing::warn!(%address, "a call with an unknown token was refused");
            Err(ended(access))
        }
    }
}

/// What is said of a token that is not in force. It is the same for one that never was, so that a stranger
/// who tries tokens learns nothing.
pub fn ended(access: Access) -> ApiError {
    ApiError::Unauthorized(format!(
        "the token is not in force here: it is mistyped, has expired, is used up, was revoked, or was made for \
         another data directory than this coordinator's (`token create --data DIR`); {}",
        access.remedy()
    ))
}

/// Where a call came from. Behind a proxy, what that proxy says: the last entry, since those before it are
/// the client's own words.
fn address(app: &App, parts: &Parts) -> IpAddr {
    let forwarded = || {
        let last = parts.headers.get_all(FORWARDED_FOR).iter().next_back()?;
        last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    };
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let proxied = if app.settings().behind_proxy { forwarded() } else { None };
    // Without a connection, as in tests, all calls count as one address.
    proxied.or(peer).unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Whether a call names this machine by an address or as `localhost`. A name that anybody's DNS may point here
/// does not.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let host = host.to_str().unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

/// Somebody who may read: anybody, where the settings say so.
pub struct Reader;

/// Somebody who may ask for measurements.
pub struct Researcher(pub Actor);

/// Somebody who may ask for measurements and take that back.
pub struct Requester {
    /// Who.
    pub actor: Actor,
    /// Whether also what others have asked for.
    pub is_admin: bool,
}

/// A caller who may enrol agents.
pub struct Enroller(pub Actor);

/// The host of the farm.
pub struct Admin(pub Actor);

/// An agent.
pub struct Worker(pub Agent);

impl FromRequestParts<App> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        // A call through a proxy comes from elsewhere, whatever the limits on connections to this port are. The same
        // holds for a call that a page of another site makes through a browser on this machine; its `Host` is the
        // site's name for this machine.
        let direct =
            !parts.headers.contains_key(FORWARDED_FOR) && is_of_this_machine(&parts.headers);
        match parts.headers.get(header::AUTHORIZATION) {
            // A wrong token is a mistake that the caller should learn about, even if no token is needed.
            Some(header) if app.settings().open_reads && direct => {
                known(app, parts, header, Access::Read).await?;
            }
            None if app.settings().open_reads && direct => {}
            _ => {
                holder(app, parts, Access::Read).await?;
            }
        }
        Ok(Reader)
    }
}

impl FromRequestParts<App> for Researcher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Ok(Researcher(holder(app, parts, Access::Ask).await?.actor()))
    }
}

impl FromRequestParts<App> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let holder = holder(app, parts, Access::Ask).await?;
        Ok(Requester { actor: holder.actor(), is_admin: Access::Host.is_open_to(holder.role) })
    }
}

impl FromRequestParts<App> for Enroller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Ok(Enroller(holder(app, parts, Access::Enrol).await?.actor()))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Ok(Admin(holder(app, parts, Access::Host).await?.actor()))
    }
}

impl FromRequestParts<App> for Worker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let holder = holder(app, parts, Access::Work).await?;
        holder
            .agent
            .map(Worker)
            .ok_or_else(|| ApiError::Internal(anyhow::anyhow!("an agent's token has no agent")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_somebody_elses_is_not_this_machine() {
        let of = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_of_this_machine(&headers)
        };
        for host in ["127.0.0.1:8700", "[::1]:8700", "localhost", "LOCALHOST:8700", "192.0.2.7"] {
            assert!(of(host), "{host}");
        }
        for host in ["rebound.example:8700", "localhost.example", "127.0.0.1.example", "", "a b"] {
            assert!(!of(host), "{host}");
        }
        assert!(is_of_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn each_role_opens_what_it_is_for() {
        use Access::{Ask, Enrol, Host, Read, Work};
        for (role, open) in [
            (Role::Enroll, vec![Enrol]),
            (Role::Researcher, vec![Read, Ask]),
            (Role::Admin, vec![Read, Ask, Enrol, Host]),
            (Role::Agent, vec![Read, Work]),
        ] {
            for access in [Read, Ask, Enrol, Work, Host] {
                assert_eq!(access.is_open_to(role), open.contains(&access), "{role:?} {access:?}");
            }
        }
    }
}
