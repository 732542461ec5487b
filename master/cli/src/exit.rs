//! What the exit codes of `plat` mean.

use plat_model::{Category, Problem};
use std::process::ExitCode;

/// The exit code for a failure; the table is in `plat --help`.
pub fn code(problem: &Problem) -> ExitCode {
    let code = match problem.category() {
        _ if problem.code == plat_model::problem::codes::USAGE => 2,
        Category::Invalid | Category::Failed | Category::Exhausted => 1,
        Category::NotFound => 3,
        Category::Unauthenticated | Category::Denied => 4,
        Category::Conflict => 5,
        Category::TimedOut => 6,
        Category::Unavailable => 7,
    };
    ExitCode::from(code)
}
