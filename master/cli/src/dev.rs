use crate::commands::Context; use crate::args::DevArgs; pub async fn run(_: &Context, _: DevArgs) -> plat_model::Result<()> { Ok(()) }
