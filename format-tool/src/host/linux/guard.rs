//! The packet filter's table, by the program `nft`.

use node_format_plan::Action;
use node_format_plan::facts::Guard;
use plat_model::problem::Result;

/// The table, if there is one.
pub(super) fn observe() -> Result<Option<Guard>> {
    Ok(None)
}

pub(super) fn perform(_action: &Action) -> Result<()> {
    Ok(())
}
