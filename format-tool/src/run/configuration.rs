//! The configuration as read, and what is asked of it: each problem with it says the line.

use crate::args::Args;
use node_format::{Epoch, Host, LinuxHost, Record};
use node_format_plan::{Layout, Places, Scope, Settings, parse_with_places};
use plat_model::problem::{Problem, Problems, codes};
use std::io::Read;

/// Longest configuration that is read, in bytes; a longer one is refused by the parser.
const SIZE_MAX: u64 = 2 << 20;

pub(super) struct Configuration {
    pub settings: Settings,
    places: Places,
    pub epoch: Epoch,
}

impl Configuration {
    pub fn read(args: &Args) -> Result<Self, Problems> {
        let name = args.config.display().to_string();
        let mut text = String::new();
        let read = std::fs::File::open(&args.config).and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text));
        read.map_err(|e| {
            Problem::new(codes::BAD_CONFIG, format!("{name} cannot be read"))
                .because(e)
                .fix("`node-format init` writes one that fits this machine, `node-format example` prints every key")
        })?;
        let (settings, places) = parse_with_places(&name, &text)?;
        Ok(Self { settings, places, epoch: Epoch::current().alone(args.links_gone) })
    }

    /// All that must exist. What the settings leave to the machine is filled in.
    pub fn layout(&mut self, host: &mut LinuxHost) -> Result<Layout, Problems> {
        if self.settings.needs_the_machine() {
            let facts = host.observe(&Scope { network: true, ..Scope::default() })?;
            self.settings = self.settings.clone().resolve(&facts).map_err(|problems| self.located(problems))?;
        }
        Ok(Layout::new(&self.settings)?)
    }

    pub fn record(&self, host: &LinuxHost) -> Result<Record, Problems> {
        Ok(Record::read(&host.beneath_root(&self.settings.paths.record), &self.epoch)?)
    }

    /// What was found later to be wrong, with the lines of the keys it names.
    pub fn located(&self, problems: Problems) -> Problems {
        self.places.locate(problems)
    }
}
