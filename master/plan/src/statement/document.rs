//! A closed statement as it is kept: JSON with the version of its form. A form, once released, is read for ever: what was
//! billed is shown as it was billed.

use super::Statement;
use crate::record::ClosedStatement;
use plat_model::problem::{Problem, codes};
use serde::{Deserialize, Serialize};

/// The form that is written.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'s> {
    version: u32,
    #[serde(flatten)]
    statement: &'s Statement,
}

#[derive(Deserialize)]
struct Version {
    /// What was closed before forms had a number is of the first.
    #[serde(default = "first")]
    version: u32,
}

fn first() -> u32 {
    1
}

pub(super) fn write(statement: &Statement) -> Result<String, Problem> {
    serde_json::to_string(&Written { version: VERSION, statement }).map_err(|error| {
        Problem::new(codes::INTERNAL, format!("the statement of {} cannot be written as JSON", statement.period))
            .because(error)
    })
}

pub(super) fn read(closed: &ClosedStatement) -> Result<Statement, Problem> {
    let what = format!("the closed statement of `{}` for {} cannot be read", closed.project, closed.period);
    let damaged = |error: serde_json::Error| {
        Problem::new(codes::STORE_FAILED, what.clone())
            .because(error)
            .fix("compare with a copy of the store, or with what was printed when it was closed")
    };
    let Version { version } = serde_json::from_str(&closed.document).map_err(damaged)?;
    if version != VERSION {
        return Err(Problem::new(codes::STORE_VERSION, what.clone())
            .because(format!("its form is {version}, this version knows {VERSION}"))
            .fix("start the version of the master that closed it, or a newer one"));
    }
    serde_json::from_str(&closed.document).map_err(damaged)
}
