//! Machines that boot: the grid as root installs it, on systemd, over reboots.

mod examples;
mod master;
mod node;
mod runtime;
mod work;
