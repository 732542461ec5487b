//! The real kernel, in a network namespace and a root folder of each test's own: the machine's own links and users are
//! never touched. Without root these tests fail where `CI` is set, and say that they were skipped where it is not.

mod accounts;
mod announced;
mod drifted;
mod effects;
mod enrolment;
mod erased;
mod exactly;
mod files;
mod formatting;
mod forwarding;
mod gone;
mod guard;
mod half_made;
mod killed;
mod left;
mod links;
mod locked;
mod losses;
mod machine;
mod mtu;
mod names;
mod namespaces;
mod near;
mod order;
mod places;
mod races;
mod records;
mod threadless;
mod told;
mod uplink;
mod way_back;
mod ways;
