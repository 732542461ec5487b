//! What a service may still have wrong.

use super::{Checker, Stage};
use crate::release::{Release, Reload, Restart, Service, ServiceKind};
use crate::tree::nearest;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_model::schedule::Schedule;

impl Checker<'_> {
    pub(super) fn service(&mut self, release: &Release, name: &str, service: &Service) {
        self.command(&["services", name, "command"], &service.command, Stage::Arguments);
        self.environment(&["services", name, "environment"], &service.environment);
        self.relative(&["services", name, "directory"], &service.directory, true);
        self.changes(release, name, service);
        self.kind(name, service);
        if let Some(Err(why)) = service.schedule.as_deref().map(Schedule::parse) {
            let problem = Problem::new(codes::BAD_VALUE, "`schedule` is not one")
                .because(why)
                .fix("write minute, hour, day of the month, month and day of the week, such as `30 2 * * mon-fri`");
            self.note(&["services", name, "schedule"], problem);
        }
    }

    /// What does not go with its kind.
    fn kind(&mut self, name: &str, service: &Service) {
        let mut without = |key: &str, is: bool, why: &str, fix: &str| {
            if is {
                let problem = Problem::new(codes::BAD_VALUE, format!("`{key}` does not go with this kind of service"));
                self.note(&["services", name, key], problem.because(why).fix(fix));
            }
        };
        if service.kind == ServiceKind::Service {
            let fix = "say `kind: oneshot`, or leave `schedule` out";
            without("schedule", service.schedule.is_some(), "a service runs all the time", fix);
            return;
        }
        let always = service.restart == Some(Restart::Always);
        let fix = "say `on-failure` or `never`, or leave `kind` out";
        without("restart", always && service.schedule.is_none(), "a one-shot that always runs again is a service", fix);
        let timed = service.restart.is_some() && service.schedule.is_some();
        without("restart", timed, "it runs again at the next time of its schedule", "leave `restart` out");
        let why = "a one-shot that hangs is not started again for it";
        without("watchdog_seconds", service.watchdog_seconds.is_some(), why, "leave `watchdog_seconds` out");
        let why = "a one-shot reads its files when it runs; it runs again when they change";
        without("reload", service.reload.is_some(), why, "leave `reload` out");
    }

    /// What is done with a service when files change.
    fn changes(&mut self, release: &Release, name: &str, service: &Service) {
        let used = service.files.as_deref().unwrap_or_default();
        for (n, path) in used.iter().enumerate().filter(|(_, path)| !release.files.contains_key(*path)) {
            let shown = plat_model::id::shorten(path);
            let problem = Problem::new(codes::BAD_VALUE, format!("there is no file `{shown}`"))
                .because("a service uses files that the document has under `files`");
            let problem = match nearest(path, release.files.keys().map(String::as_str)) {
                Some(near) => problem.fix(format!("did you mean `{near}`?")),
                None => problem.fix("name it as under `files`, or leave it out"),
            };
            self.note(&["services", name, "files", &n.to_string()], problem);
        }
        let Some(reload) = &service.reload else { return };
        if release.files.is_empty() || service.files.as_ref().is_some_and(Vec::is_empty) {
            let problem = Problem::new(codes::BAD_VALUE, "there is nothing that this service could reload")
                .because("it uses no file of the document")
                .fix("leave `reload` out, or name its files under `files`");
            self.note(&["services", name, "reload"], problem);
        }
        if let Reload::Command(command) = reload {
            self.command(&["services", name, "reload", "command"], command, Stage::Arguments);
        }
    }
}
