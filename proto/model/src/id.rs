//! Identifiers. Each kind is its own type, so that a node can never be passed as a partition; only `parse` makes one,
//! so whatever holds one holds a legal one. They compare whole: nothing in the grid matches by prefix.

use crate::problem::{Problem, codes};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest name in bytes, after the DNS label (RFC 1035).
pub const NAME_MAX: usize = 63;
/// Longest partition name in bytes: it names a network link, and Linux allows 15 (IFNAMSIZ - 1).
pub const PARTITION_NAME_MAX: usize = 15;

fn check_name(text: &str, what: &str, max: usize) -> Result<(), Problem> {
    let wrong = |why: String| {
        Problem::new(codes::BAD_NAME, format!("`{}` is not a legal {what}", shorten(text)))
            .because(why)
            .fix(format!("use 1 to {max} lower-case letters, digits and `-`, starting with a letter or digit"))
    };
    if text.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if text.len() > max {
        return Err(wrong(format!("it has {} bytes, {max} are allowed", text.len())));
    }
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
        return Err(wrong(format!("it holds {c:?}")));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(wrong("it starts or ends with `-`".into()));
    }
    Ok(())
}

/// At most 60 characters of a text from outside, control characters escaped, for use in messages.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// # Errors
            /// [`codes::BAD_NAME`] when the text is not a legal one.
            pub fn parse(text: &str) -> Result<Self, Problem> {
                let check: fn(&str, &str) -> Result<(), Problem> = $check;
                check(text, $what)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Problem;
            fn from_str(text: &str) -> Result<Self, Problem> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(|problem| de::Error::custom(problem.one_line()))
            }
        }
    };
}

fn name(text: &str, what: &str) -> Result<(), Problem> {
    check_name(text, what, NAME_MAX)
}

text_type!(/** Name of a grid, e.g. `campus`; the trust domain of its certificates. */ GridName, "grid name", name);
text_type!(/** Name of a node, unique in its grid, e.g. `edge-7`. */ NodeId, "node name", name);
text_type!(/** Name of a project: the tenant, and part of every key of what it owns. */ ProjectName, "project name", name);
text_type!(/** Name of a person or program that may call the grid. */ UserName, "user name", name);
text_type!(/** Name of an instance, unique in its project. */ InstanceName, "instance name", name);
text_type!(/** Name under which a release document is added; its versions differ by digest. */ ReleaseName, "release name", name);
text_type!(/** Name of a service of a release. */ ServiceName, "service name", name);
text_type!(/** Name of a hook of a release. */ HookName, "hook name", name);
text_type!(/** Name of a promise of a release. */ PromiseName, "promise name", name);
text_type!(
    /** Name of one partition on one node, e.g. `part7`; at most 15 bytes, for it names a tap too. */
    PartitionName, "partition name", |text, what| check_name(text, what, PARTITION_NAME_MAX)
);

fn lower_hex(text: &str, what: &str, digits: usize) -> Result<(), Problem> {
    if text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Problem::new(codes::BAD_NAME, format!("`{}` is not a legal {what}", shorten(text)))
        .because(format!("{digits} lower-case hexadecimal digits are expected"))
        .fix("copy it whole from where it was printed"))
}

text_type!(
    /** What an instance is known by for ever: 128 random bits as 32 hexadecimal digits. Never reused. */
    InstanceId, "instance id", |text, what| lower_hex(text, what, 32)
);
text_type!(
    /** SHA-256 of what it names, as 64 hexadecimal digits. */
    Digest, "digest", |text, what| lower_hex(text, what, 64)
);
text_type!(
    /** The public half of a token: 16 hexadecimal digits. The secret half is never an identifier. */
    TokenId, "token id", |text, what| lower_hex(text, what, 16)
);

impl Digest {
    /// Its first 12 digits, for people; never for comparing.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// One partition of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionRef {
    pub node: NodeId,
    pub partition: PartitionName,
}

impl fmt::Display for PartitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_with_a_short_message() {
        let huge = "x".repeat(10 << 20);
        for wrong in ["", "../x", "a\nb", "A", "a b", "-a", "a-", "é", "a/b", "a\0b", huge.as_str()] {
            let problem = InstanceName::parse(wrong).unwrap_err();
            assert_eq!(problem.code, codes::BAD_NAME);
            assert!(problem.what.len() < 400, "{}", problem.what.len());
            assert!(!problem.what.contains('\n'));
        }
        assert_eq!(InstanceName::parse("db-1").unwrap().as_str(), "db-1");
    }

    #[test]
    fn a_partition_name_fits_a_network_link() {
        assert!(PartitionName::parse("abcdefghijklmno").is_ok());
        assert!(PartitionName::parse("abcdefghijklmnop").is_err());
    }

    #[test]
    fn reading_a_name_checks_it() {
        assert!(serde_json::from_str::<NodeId>("\"../etc\"").is_err());
        assert_eq!(serde_json::from_str::<NodeId>("\"n1\"").unwrap(), NodeId::parse("n1").unwrap());
    }
}
