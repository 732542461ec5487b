//! Enums. The value 0 means "not said", and a value that this version does not know is a problem, never a guess.

use crate::convert::{IntoModel, Place};
use crate::v1;
use plat_model::Problems;
use plat_model::instance::{InstanceState, ServiceKind, ServiceState, Wish};
use plat_model::release::InstallState;

macro_rules! states {
    ($($state:ident: $($variant:ident),*;)*) => {$(
        impl From<$state> for v1::$state {
            fn from(state: $state) -> Self {
                match state { $($state::$variant => Self::$variant),* }
            }
        }

        impl IntoModel for v1::$state {
            type Model = $state;
            fn read(self, at: &Place, problems: &mut Problems) -> Option<$state> {
                match self {
                    Self::Unspecified => {
                        problems.push(at.wrong(concat!("no ", stringify!($state), " is said")));
                        None
                    }
                    $(Self::$variant => Some($state::$variant)),*
                }
            }
        }
    )*};
}

states! {
    Wish: Started, Stopped, Destroyed;
    InstanceState: Waiting, Installing, Starting, Ready, Degraded, Failed, Stopping, Stopped, Destroying, Destroyed;
    ServiceState: Stopped, Running, Backoff, Done, Failed;
    ServiceKind: Service, Oneshot;
    InstallState: Absent, Installing, Installed, Failed, Removing;
}

/// Reads the number of an enum's value, as fields of messages hold it.
pub(in crate::convert) fn read_enum<E>(number: i32, at: &Place, problems: &mut Problems) -> Option<E::Model>
where
    E: IntoModel + TryFrom<i32>,
{
    match E::try_from(number) {
        Ok(value) => value.read(at, problems),
        Err(_) => {
            problems.push(
                at.wrong("a state is not known to this version")
                    .because(format!("its number is {number}"))
                    .fix("upgrade this side to the other's version"),
            );
            None
        }
    }
}
