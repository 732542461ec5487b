//! Which runtime keeps the services of this host.

use super::{Records, Runtime, Setting, ShimRuntime, SystemdRuntime, beside};
use crate::config::Runtime as Wish;
use crate::host::linux::process::boot_id;
use crate::host::linux::shim::RunState;
use crate::host::linux::shim::tree::Phase;
use plat_model::Problem;
use plat_model::problem::codes;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Systemd,
    Shim,
}

/// What is wished, where it can be had.
///
/// # Errors
/// PREREQUISITE if systemd is wished and is not here; BAD_STATE_FILE if it cannot be read what runs; CONFLICT if services run
/// that the other runtime keeps: no service is ended for a setting.
pub async fn choose(wish: Wish, setting: Setting) -> Result<Arc<dyn Runtime>, Problem> {
    let records = Records::new(&setting.state);
    let running = beside(move || running(&records)).await?;
    let systemd = match (wish, running) {
        (Wish::Shim, _) | (Wish::Auto, Some(Kind::Shim)) => None,
        (Wish::Systemd, _) => Some(SystemdRuntime::new(setting.clone()).await?),
        (Wish::Auto, _) if !super::systemd::lives_here() => None,
        (Wish::Auto, _) => match SystemdRuntime::new(setting.clone()).await {
            Ok(systemd) => Some(systemd),
            Err(problem) => {
                tracing::warn!(problem = problem.one_line(), "services are kept by shims");
                None
            }
        },
    };
    match decide(wish, systemd.is_some(), running)? {
        Kind::Systemd => {
            let systemd = systemd.ok_or_else(|| Problem::new(codes::INTERNAL, "systemd is gone meanwhile"))?;
            Ok(Arc::new(systemd))
        }
        Kind::Shim => {
            if (wish, running) == (Wish::Auto, Some(Kind::Shim)) && super::systemd::lives_here() {
                tracing::info!("services that shims keep run still; systemd keeps them after the machine's next start");
            }
            Ok(Arc::new(ShimRuntime::new(setting)))
        }
    }
}

/// Who keeps services that run now, if some do.
///
/// # Errors
/// BAD_STATE_FILE if it cannot be read what runs.
fn running(records: &Records) -> Result<Option<Kind>, Problem> {
    let boot = boot_id();
    let of = |state: &RunState| match state.systemd {
        // Also between two runs: systemd would start the next one.
        Some(_) => (state.phase != Phase::Ended && state.boot == boot).then_some(Kind::Systemd),
        None => state.is_attended(&boot).then_some(Kind::Shim),
    };
    for partition in records.partitions()? {
        if let Some(kind) = records.runs(&partition)?.values().find_map(of) {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// `has_systemd`: it is here and answers, as far as somebody asked.
fn decide(wish: Wish, has_systemd: bool, running: Option<Kind>) -> Result<Kind, Problem> {
    let wished = match wish {
        Wish::Systemd => Kind::Systemd,
        Wish::Shim => Kind::Shim,
        Wish::Auto if has_systemd => Kind::Systemd,
        Wish::Auto => Kind::Shim,
    };
    let refused = |keeper: &str, way_out: &str| {
        let what = "the runtime cannot be changed while services run";
        Err(Problem::new(codes::CONFLICT, what)
            .because(format!("{keeper} keeps services that run, and no service is ended for a setting"))
            .fix(format!("{way_out}; or restart the machine, and the setting holds from then on")))
    };
    match (wished, running) {
        (Kind::Systemd, Some(Kind::Shim)) => {
            refused("a shim", "set `runtime = \"auto\"` or `runtime = \"shim\"` in agent.toml")
        }
        (Kind::Shim, Some(Kind::Systemd)) => {
            refused("systemd", "set `runtime = \"auto\"` or `runtime = \"systemd\"` in agent.toml")
        }
        (wished, _) => Ok(wished),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_it_is_systemd_where_that_is() {
        assert_eq!(decide(Wish::Auto, true, None).ok(), Some(Kind::Systemd));
        assert_eq!(decide(Wish::Auto, true, Some(Kind::Systemd)).ok(), Some(Kind::Systemd));
        assert_eq!(decide(Wish::Auto, false, None).ok(), Some(Kind::Shim));
        assert_eq!(decide(Wish::Auto, false, Some(Kind::Shim)).ok(), Some(Kind::Shim));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_nothing_that_runs() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::new(state.path());
        assert_eq!(running(&records).unwrap(), None);
        let services = state.path().join("partitions/p0/services");
        std::fs::create_dir_all(services.join("db/state.json")).unwrap();
        let problem = running(&records).unwrap_err();
        assert!(problem.code == codes::BAD_STATE_FILE && problem.to_string().contains("state.json"), "{problem}");
        std::fs::remove_dir_all(&services).unwrap();
        std::fs::write(&services, "").unwrap();
        assert_eq!(running(&records).unwrap_err().code, codes::BAD_STATE_FILE);
    }

    #[test]
    fn no_setting_ends_a_service_or_runs_it_twice() {
        for (wish, running) in [(Wish::Systemd, Kind::Shim), (Wish::Shim, Kind::Systemd), (Wish::Auto, Kind::Systemd)] {
            assert_eq!(
                decide(wish, wish == Wish::Systemd, Some(running)).unwrap_err().code,
                codes::CONFLICT,
                "{wish:?}"
            );
        }
        assert_eq!(decide(Wish::Shim, true, Some(Kind::Shim)).ok(), Some(Kind::Shim));
        assert_eq!(decide(Wish::Systemd, true, Some(Kind::Systemd)).ok(), Some(Kind::Systemd));
    }
}
