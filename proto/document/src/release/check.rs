//! What a document of the right form may still have wrong: paths, templates, the schema of parameters.

use super::{Check, Hook, Release, Role};
use crate::template::{self, Names};
use crate::tree::{Node, nearest};
use crate::{parameters, yaml};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use std::collections::{BTreeMap, BTreeSet};

mod services;
mod sources;

/// What templates may use besides `parameters.*`, `secrets.*` and `volumes.*`.
pub const VARIABLES: &[&str] = &[
    "instance.id",
    "instance.name",
    "instance.project",
    "node.name",
    "partition.address",
    "partition.directory",
    "partition.ipv4",
    "partition.name",
    "partition.resource_file",
    "partition.storage",
    "partition.url_host",
    "partition.user",
    "release.digest",
    "release.directory",
    "shared",
];

/// Where a template stands, and so what it may use.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// While the release is built: no instance exists.
    Build,
    /// The arguments of a process, which every user of the machine can read.
    Arguments,
    Instance,
}

struct Checker<'a> {
    tree: &'a Node,
    /// What each stage may use.
    names: Names,
    problems: Problems,
}

pub(super) fn check(release: &Release, tree: &Node) -> Problems {
    let names = Names {
        parameters: release.parameters.clone(),
        secrets: release.secrets.keys().cloned().collect(),
        volumes: release.volumes.keys().cloned().collect(),
        others: VARIABLES,
    };
    let mut checker = Checker { tree, names, problems: Problems::default() };
    for (key, schema) in [("parameters", &release.parameters), ("shared", &release.shared)] {
        for problem in schema.iter().flat_map(parameters::check_schema) {
            let place = checker.place(&[key]);
            checker.problems.push(problem.at(place));
        }
    }
    if release.services.is_empty() && release.files.is_empty() && release.hooks == super::Hooks::default() {
        let problem = Problem::new(codes::MISSING_KEY, "the release would do nothing")
            .because("it has no services, no files and no hooks")
            .fix("say under `services` what shall run");
        checker.note(&[], problem);
    }
    checker.sources(release);
    checker.build(release);
    checker.instance(release);
    checker.problems
}

impl Checker<'_> {
    fn place(&self, path: &[&str]) -> String {
        self.tree.place_of(path.iter().copied()).to_string()
    }

    fn note(&mut self, path: &[&str], problem: Problem) {
        if self.problems.0.len() < yaml::PROBLEMS_MAX {
            let place = self.place(path);
            self.problems.push(problem.at(place));
        }
    }

    fn build(&mut self, release: &Release) {
        if let Some(build) = &release.build {
            for (n, command) in build.commands.iter().enumerate() {
                self.command(&["build", "commands", &n.to_string()], command, Stage::Build);
            }
        }
    }

    fn instance(&mut self, release: &Release) {
        for (path, file) in &release.files {
            self.relative(&["files", path], path, false);
            self.template(&["files", path, "template"], &file.template, Stage::Instance);
        }
        self.secret_files(release);
        let hooks = &release.hooks;
        let points = [
            ("init", &hooks.init),
            ("configure", &hooks.configure),
            ("start", &hooks.start),
            ("stop", &hooks.stop),
            ("clean", &hooks.clean),
        ];
        for (point, hook) in points {
            if let Some(Hook { command, environment, directory, .. }) = hook {
                self.command(&["hooks", point, "command"], command, Stage::Arguments);
                self.environment(&["hooks", point, "environment"], environment);
                self.relative(&["hooks", point, "directory"], directory, true);
            }
        }
        for (name, service) in &release.services {
            self.service(release, name.as_str(), service);
        }
        for (name, promise) in &release.promises {
            let path = ["promises", name.as_str()];
            let uncounted = [
                ("delay_seconds", promise.delay_seconds, matches!(promise.role, Role::Built)),
                ("threshold", promise.threshold, matches!(promise.role, Role::Built | Role::Test)),
            ];
            for (key, _, _) in uncounted.into_iter().filter(|(_, value, without)| *without && value.is_some()) {
                let problem = Problem::new(codes::BAD_VALUE, format!("a promise of this role has no `{key}`"))
                    .because("one that is `built` is asked before there is a start; of `built` and `test` no failures are counted")
                    .fix(format!("leave `{key}` out, or give the promise the role `ready` or `alive`"));
                self.note(&[path[0], path[1], key], problem);
            }
            match &promise.check {
                Check::Exec(command) => self.command(&[path[0], path[1], "exec"], command, Stage::Arguments),
                Check::Http(http) => {
                    let at = [path[0], path[1], "http", "url"];
                    self.template(&at, &http.url, Stage::Instance);
                    if !http.url.starts_with("http://") && !http.url.starts_with("{{") {
                        let problem = Problem::new(codes::BAD_VALUE, "`url` does not begin with http://")
                            .because("promises are checked on the node itself, without TLS");
                        self.note(&at, problem);
                    }
                }
                Check::Tcp(tcp) => {
                    self.template(&[path[0], path[1], "tcp", "address"], &tcp.address, Stage::Instance);
                    let at = [path[0], path[1], "tcp", "port"];
                    self.template(&at, &tcp.port, Stage::Instance);
                    if !tcp.port.contains("{{") && !tcp.port.parse::<u16>().is_ok_and(|port| port > 0) {
                        self.note(&at, Problem::new(codes::BAD_VALUE, "`port` is not a number from 1 to 65535"));
                    }
                }
            }
        }
        for (key, text) in &release.publish {
            self.template(&["publish", key], text, Stage::Instance);
        }
    }

    /// Each in a place of its own.
    fn secret_files(&mut self, release: &Release) {
        let mut taken: BTreeSet<&str> = release.files.keys().map(String::as_str).collect();
        for (name, secret) in &release.secrets {
            let Some(path) = &secret.file else { continue };
            let at = ["secrets", name, "file"];
            self.relative(&at, path, false);
            if !taken.insert(path) {
                let what = format!("another file is `{}` already", plat_model::id::shorten(path));
                self.note(&at, Problem::new(codes::BAD_VALUE, what).fix("give each file a path of its own"));
            }
        }
    }

    fn relative(&mut self, at: &[&str], path: &str, may_be_empty: bool) {
        let why = if path.is_empty() && !may_be_empty {
            "it is empty"
        } else if path.starts_with('/') {
            "it begins with `/`"
        } else if path.len() > 1024 || path.split('/').any(|part| part.len() > 255) {
            "it is longer than a path may be"
        } else if path.chars().any(char::is_control) {
            "it holds a control character"
        } else if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            "it has an empty part, `.` or `..`"
        } else {
            return;
        };
        let what = format!("`{}` is not a path within the folder", plat_model::id::shorten(path));
        self.note(at, Problem::new(codes::BAD_VALUE, what).because(why).fix("write it like `etc/app.conf`"));
    }

    fn environment(&mut self, at: &[&str], environment: &BTreeMap<String, String>) {
        for (key, value) in environment {
            self.template(&[at, &[key.as_str()]].concat(), value, Stage::Instance);
        }
    }

    fn command(&mut self, at: &[&str], command: &[String], stage: Stage) {
        if command.first().is_none_or(|program| program.trim().is_empty()) {
            self.note(at, Problem::new(codes::BAD_VALUE, "a command names no program"));
        } else if stage == Stage::Arguments
            && !command[0].starts_with('/')
            && !command[0].starts_with("{{")
            && !command[0].starts_with("{%")
        {
            let problem = Problem::new(codes::BAD_VALUE, "a command's program is not an absolute path")
                .fix(format!("write `{{{{ release.directory }}}}/…/{}`", plat_model::id::shorten(&command[0])));
            self.note(at, problem);
        }
        for (n, argument) in command.iter().enumerate() {
            self.template(&[at, &[&*n.to_string()]].concat(), argument, stage);
        }
    }

    fn template(&mut self, at: &[&str], text: &str, stage: Stage) {
        let first_line = self.tree.at(at.iter().copied()).map_or(0, |node| node.place.line);
        let file = self.tree.place_of(at.iter().copied()).file;
        // A flow or quoted text has a column worth telling; in a block the line is what counts.
        let place = |line: usize| match first_line {
            0 => format!("{file}: {}", at.join(".")),
            _ if line == 1 => self.tree.place_of(at.iter().copied()).to_string(),
            first => format!("{file}:{}:1", first + line - 1),
        };
        let used = match template::variables(text) {
            Ok(used) => used,
            Err((line, problem)) => {
                let problem = problem.at(place(line));
                self.problems.push(problem);
                return;
            }
        };
        let mut found = Vec::new();
        for variable in used {
            let line = template::line_of(text, &variable);
            if let Some(problem) = self.wrong_use(&variable, stage) {
                found.push(problem.at(place(line)));
            }
        }
        self.problems.extend(found);
    }

    fn wrong_use(&self, variable: &str, stage: Stage) -> Option<Problem> {
        let undefined = |why: &str| {
            Problem::new(codes::UNDEFINED_VARIABLE, format!("`{variable}` does not exist in a template here"))
                .because(why)
        };
        if stage == Stage::Build {
            let fine = variable == "release.directory";
            return (!fine).then(|| {
                undefined("a release is built before it has instances").fix("only `release.directory` exists there")
            });
        }
        if stage == Stage::Arguments && variable.split('.').next() == Some("secrets") {
            return Some(
                Problem::new(codes::BAD_TEMPLATE, format!("`{variable}` is used in the arguments of a process"))
                    .because("every user of the machine can read them")
                    .fix("write the secret into a file of mode 0600 under `files`, and name the file in the command"),
            );
        }
        if self.names.defines(variable) {
            return None;
        }
        let known = self.names.all();
        let problem = undefined("strict templates use only what is defined");
        Some(match nearest(variable, known.iter().map(String::as_str)) {
            Some(near) => problem.fix(format!("did you mean `{near}`?")),
            None => problem.fix(format!("known are {}", known.join(", "))),
        })
    }
}
