//! A profile: a folder with the credentials for one grid. `plat-master init` and `plat login` make one.
//!
//! ```text
//! profile.toml      version, url, grid, user
//! credentials.pem   the private key, made here, its certificate chain and the grid's root; 0600
//! ```

use plat_model::problem::codes;
use plat_model::{Problem, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    /// Where the master is: `https://host:port`.
    pub url: String,
    pub grid: String,
    pub user: String,
}

impl Profile {
    pub const VERSION: u32 = 1;

    /// # Errors
    /// [`codes::NO_PROFILE`] if there is none, or it cannot be used.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join("profile.toml");
        let wrong = |why: String| {
            Problem::new(codes::NO_PROFILE, format!("cannot use the profile {}", folder.display())).because(why).fix(
                "log in with `plat login --master URL --token-file F`, name another folder with --profile, or try `plat dev`",
            )
        };
        let text = std::fs::read_to_string(&file).map_err(|e| wrong(format!("{}: {e}", file.display())))?;
        let profile: Self = toml::from_str(&text).map_err(|e| wrong(format!("{}: {}", file.display(), e.message())))?;
        if profile.version != Self::VERSION {
            return Err(wrong(format!("it is of version {}, this plat reads {}", profile.version, Self::VERSION)));
        }
        Ok(profile)
    }
}

/// The folder to use: the one given, else `default` within the user's configuration folder.
///
/// # Errors
/// [`codes::NO_PROFILE`] if no folder can be named.
pub fn folder(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("XDG_CONFIG_HOME")
        .or_else(|| var("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("plat/default"))
        .ok_or_else(|| {
            Problem::new(codes::NO_PROFILE, "plat does not know where its profile is")
                .because("neither HOME nor XDG_CONFIG_HOME is set")
                .fix("name the folder with --profile")
        })
}
