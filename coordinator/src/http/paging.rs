//! `?cursor=` and `?limit=` of lists.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::store::After;

/// Entries of a page unless the client says otherwise.
const USUAL_LIMIT: u32 = 100;

/// The most entries of a page.
const MOST: u32 = 1000;

/// The query of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries of the page, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl Paging {
    /// The page that is asked for.
    pub fn after<C: FromStr>(self) -> Result<After<C>, ApiError> {
        let limit = self.limit.unwrap_or(USUAL_LIMIT);
        if !(1..=MOST).contains(&limit) {
            return Err(ApiError::Malformed(format!("the query: limit is 1 to {MOST}")));
        }
        let cursor = self.cursor.map(|text| text.parse()).transpose().map_err(|_| {
            ApiError::Malformed(
                "the query: cursor is not one of ours: pass the `next_cursor` of the page before"
                    .into(),
            )
        })?;
        Ok(After { cursor, limit })
    }
}
