//! Routes wanted × found.

use super::Planner;
use crate::action::Action;
use crate::facts::Route;
use crate::thing::Thing;
use std::collections::BTreeMap;

impl Planner<'_> {
    pub(super) fn routes(&mut self) {
        for thing in self.claims.iter() {
            let Thing::Route(route) = thing else { continue };
            if !self.facts.routes.contains(route) {
                self.forget.push(thing.clone());
            } else if !self.layout.routes.contains(route) || self.leaving.contains(&route.link) {
                self.remove.push(Action::RemoveRoute(route.clone()));
            }
        }
        let mut by_destination: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
        self.facts.routes.iter().for_each(|route| by_destination.entry(route.destination).or_default().push(route));
        // A router must be reachable before there is a way through it.
        let (through, direct): (Vec<_>, Vec<_>) = self.layout.routes.iter().partition(|route| route.via.is_some());
        for route in direct.into_iter().chain(through) {
            let found = by_destination.get(&route.destination).map_or(&[][..], Vec::as_slice);
            let foreign = found.iter().find(|found| !self.claims.has(&Thing::Route((**found).clone())));
            if let Some(foreign) = foreign {
                let what = format!("there is a route to {} by {}", foreign.destination, foreign.link);
                let fix = "choose another range in [network], or remove it (`ip route`)";
                self.foreign(what, "node-format did not make it", fix);
            } else if !found.contains(&route) || self.leaving.contains(&route.link) {
                self.add.push(Action::AddRoute(route.clone()));
            }
        }
    }
}
