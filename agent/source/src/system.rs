//! What kind of machine something was made for.

use plat_model::Problem;
use plat_model::problem::codes;
use std::fmt;

/// Processor, system and its version, as `x86_64-debian-13`: what runs on one machine of a kind runs on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System(String);

impl System {
    fn of(machine: &str, os_release: &str) -> Self {
        let field = |name: &str| {
            let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            let plain = |c: &char| c.is_ascii_alphanumeric() || "._".contains(*c);
            value.unwrap_or("unknown").chars().filter(plain).take(32).collect::<String>()
        };
        Self(format!("{machine}-{}-{}", field("ID"), field("VERSION_ID")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of this machine.
///
/// # Errors
/// PREREQUISITE if it does not say what system it is.
pub fn here() -> Result<System, Problem> {
    let path = "/etc/os-release";
    let text = std::fs::read_to_string(path).map_err(|e| {
        Problem::new(codes::PREREQUISITE, "this machine does not say what system it is").because(format!("{path}: {e}"))
    })?;
    Ok(System::of(std::env::consts::ARCH, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_processor_name_and_version() {
        let text = "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"13\"\n";
        assert_eq!(System::of("x86_64", text).as_str(), "x86_64-debian-13");
        assert_eq!(System::of("x86_64", "ID=../../x\n").as_str(), "x86_64-....x-unknown");
    }
}
