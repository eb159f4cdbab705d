//! Who may call what. A handler names its kind of caller in its arguments, and everything else about
//! tokens is here.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::app::App;
use crate::store::{Agent, Holder};
use crate::token::{Role, Token};

/// Kinds of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// See tables, lists and predictions.
    Read,
    /// Ask for measurements and submit ops.
    Ask,
    /// Bring a box in.
    Enrol,
    /// Work as a box.
    Work,
    /// Decide about boxes.
    Manage,
}

impl Access {
    /// The table of roles.
    fn is_open_to(self, role: Role) -> bool {
        match self {
            Access::Read => matches!(role, Role::Researcher | Role::Admin | Role::Agent),
            Access::Ask => matches!(role, Role::Researcher | Role::Admin),
            Access::Enrol => matches!(role, Role::Enroll | Role::Admin),
            Access::Work => role == Role::Agent,
            Access::Manage => role == Role::Admin,
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
                 --enroll-token`"
            }
            Access::Work => {
                "this needs the credential that the agent got when it was enrolled: enrol the agent \
                 again if it is lost"
            }
            Access::Manage => {
                "this needs an admin's token: make one on the coordinator's machine with \
                 `latlas-coordinator token create --role admin`, and send it as `Authorization: \
                 Bearer TOKEN` (for `latlas`: LATLAS_TOKEN)"
            }
        }
    }
}

async fn holder(app: &App, parts: &Parts, access: Access) -> Result<Holder, ApiError> {
    let header = parts.headers.get(header::AUTHORIZATION);
    let Some(header) = header else {
        return Err(ApiError::Unauthorized(format!("there is no token; {}", access.remedy())));
    };
    let token = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Token::from_client(token.trim()));
    let Some(token) = token else {
        return Err(ApiError::Unauthorized(format!(
            "the Authorization header is not `Bearer TOKEN`; {}",
            access.remedy()
        )));
    };
    let Some(holder) = app.store().holder(&token).await? else {
        return Err(ApiError::Unauthorized(format!(
            "the token is not known here; {}",
            access.remedy()
        )));
    };
    if access.is_open_to(holder.role) {
        return Ok(holder);
    }
    let role = holder.role.name();
    Err(ApiError::Forbidden(format!("the token has the role {role}; {}", access.remedy())))
}

/// Somebody who may read: anybody, where the settings say so.
pub struct Reader;

/// Somebody who may ask for measurements.
pub struct Researcher;

/// Somebody who may bring a box in.
pub struct Enroller;

/// The host of the farm.
pub struct Admin;

/// A box.
pub struct Worker(pub Agent);

impl FromRequestParts<App> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if !app.settings().open_reads {
            holder(app, parts, Access::Read).await?;
        }
        Ok(Reader)
    }
}

impl FromRequestParts<App> for Researcher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        holder(app, parts, Access::Ask).await?;
        Ok(Researcher)
    }
}

impl FromRequestParts<App> for Enroller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        holder(app, parts, Access::Enrol).await?;
        Ok(Enroller)
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        holder(app, parts, Access::Manage).await?;
        Ok(Admin)
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
    fn each_role_opens_what_it_is_for() {
        use Access::{Ask, Enrol, Manage, Read, Work};
        for (role, open) in [
            (Role::Enroll, vec![Enrol]),
            (Role::Researcher, vec![Read, Ask]),
            (Role::Admin, vec![Read, Ask, Enrol, Manage]),
            (Role::Agent, vec![Read, Work]),
        ] {
            for access in [Read, Ask, Enrol, Work, Manage] {
                assert_eq!(access.is_open_to(role), open.contains(&access), "{role:?} {access:?}");
            }
        }
    }
}
