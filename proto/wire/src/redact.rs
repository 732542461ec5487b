//! `Debug` of the messages that may carry secrets (tokens, parameters): it names them and shows none of it.

use crate::v1;
use std::fmt;

macro_rules! redacted {
    ($($message:ident { $($shown:ident),* })*) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($shown), &self.$shown))*.finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    EnrollRequest { name }
    LoginRequest {}
    CreateTokenResponse { id, expires_ms }
    RequestRequest { project, name, release, wish, dry_run }
    InstanceView { id, project, name, generation, wish }
    InstanceBody { id, project, name, partition, generation, release, wish }
    InstanceStatus { id, generation, state }
    SharedInstance { id, name }
    RunResult { number, hook, end }
    ChildRequest { name, release, wish, shared, on }
    PublishShared { shared }
    Child { name, instance, id, wish, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_shows_in_a_debug_print() {
        let secret = || "hunter2".to_string();
        let printed = [
            format!("{:?}", v1::EnrollRequest { token: secret(), ..Default::default() }),
            format!("{:?}", v1::LoginRequest { token: secret(), ..Default::default() }),
            format!("{:?}", v1::CreateTokenResponse { token: secret(), ..Default::default() }),
            format!("{:?}", v1::RequestRequest { parameters_json: Some(secret()), ..Default::default() }),
            format!("{:?}", v1::InstanceView { parameters_json: secret(), ..Default::default() }),
            format!("{:?}", v1::InstanceBody { parameters_json: secret(), ..Default::default() }),
            format!("{:?}", v1::InstanceStatus { connection_json: secret(), ..Default::default() }),
            format!("{:?}", v1::SharedInstance { parameters_json: secret(), ..Default::default() }),
            format!("{:?}", v1::RunResult { tail: vec![secret()], ..Default::default() }),
            format!("{:?}", v1::ChildRequest { parameters_json: Some(secret()), ..Default::default() }),
            format!("{:?}", v1::PublishShared { connection_json: secret(), ..Default::default() }),
            format!("{:?}", v1::Child { connection_json: secret(), ..Default::default() }),
        ];
        assert!(printed.iter().all(|text| !text.contains("hunter2")), "{printed:#?}");
    }
}
