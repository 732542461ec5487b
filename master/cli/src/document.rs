//! Reading a release document with all that it extends from the disk.

use crate::Result;
use plat_document::Release;
use plat_document::layer::Text;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use std::path::{Path, PathBuf};

/// Reads and checks a document; names that it extends are files beside it.
pub fn load(file: &Path) -> Result<Release> {
    resolve(file).map(|(release, _)| release)
}

/// Who set the value at `path`, and who was overruled.
pub fn explain(file: &Path, path: &str) -> Result<String> {
    let (_, layered) = resolve(file)?;
    Ok(format!("{}\n", layered.explain(path)?))
}

/// The JSON Schema of release documents.
pub fn schema() -> String {
    format!("{:#}\n", plat_document::schema::schema())
}

fn resolve(file: &Path) -> Result<(Release, plat_document::layer::Layered)> {
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let text = crate::commands::read_text(file)?;
    let mut load = |name: &str| -> Result<Option<Text>, Problem> {
        if Path::new(name).is_absolute() || name.split('/').any(|part| part == "..") {
            return Err(Problem::new(
                codes::EXTENDS_UNKNOWN,
                format!("`{}` cannot be extended", plat_model::id::shorten(name)),
            )
            .because("a document extends files of its own folder")
            .fix("put the file beside the document and name it"));
        }
        let path: PathBuf = folder.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = crate::commands::read_text(&path).map_err(Problems::into_one)?;
        Ok(Some(Text { file: path.display().to_string(), text }))
    };
    Release::resolve(&text, &file.display().to_string(), &mut load)
}
