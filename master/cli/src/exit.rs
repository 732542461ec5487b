//! What the exit codes of `plat` mean.

use plat_model::{Category, Problems};
use std::process::ExitCode;

/// The exit code for a failure, of which the first problem decides; the table is in `plat --help`.
pub fn code(problems: &Problems) -> ExitCode {
    let Some(problem) = problems.0.first() else { return ExitCode::FAILURE };
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
