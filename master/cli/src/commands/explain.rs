//! `plat explain`: why an instance is where it is, and what an error code means.

use super::{Context, instance};
use crate::Result;
use crate::args::ExplainArgs;
use plat_model::problem::codes;
use plat_model::{Code, Problem};

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

pub async fn explain(context: &Context, args: ExplainArgs) -> Result<()> {
    match (args.what.as_str(), args.name.as_deref()) {
        ("instance", Some(name)) => instance::explain(context, name).await,
        (code, None) if Code::parse(&code.to_uppercase()).is_some() => {
            context.printer.text(page(&code.to_uppercase())?)
        }
        _ => Err(Problem::new(codes::USAGE, "plat does not know what to explain")
            .fix("write `plat explain instance NAME` or `plat explain P0305`")
            .into()),
    }
}

/// The page of an error code; offline, as it was when this plat was built.
fn page(code: &str) -> Result<&'static str, Problem> {
    let found = ERROR_PAGES.iter().find(|(name, _)| *name == code).map(|(_, text)| *text);
    found.ok_or_else(|| {
        Problem::new(codes::UNKNOWN_CODE, format!("there is no problem code {code}"))
            .because("this version of plat does not know it")
            .fix("look whether it was copied right, or whether the master is newer than plat")
    })
}
