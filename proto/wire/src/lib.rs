//! What two processes of the grid say to each other: the generated types of `proto/plat/v1/*.proto`, and their
//! conversion to and from the model.
//!
//! Start with [`convert`] (its two conventions), then [`status`] (how a failure travels), then [`ends`] (clients and
//! servers with the limits of [`limits`] set).
//!
//! Invariants: nothing from a peer becomes a model value without being checked; what a peer sends too much of is
//! refused with a [`plat_model::Problem`]; field numbers never change (`proto/plat/v1.lock`). This crate performs no
//! I/O.

pub mod convert;
pub mod ends;
pub mod limits;
mod redact;
pub mod skew;
pub mod status;

/// The generated types, clients and servers.
#[allow(clippy::all, reason = "generated code; which lints it trips changes with the generator")]
pub mod v1 {
    tonic::include_proto!("plat.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of all protos: for reflection, and for tests that walk every
/// service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plat.v1.bin"));

pub use convert::{IntoModel, Place};
