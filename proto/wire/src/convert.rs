//! Between the wire and the model, by two conventions.
//!
//! *Into the model* ([`IntoModel`]) everything is checked, and all that is wrong is returned at once, each problem
//! with its place in the message (`instances[3].services[0].name`). How many things a message may hold, and how long
//! its texts may be, is bounded by [`crate::limits`].
//!
//! *Out of the model* (`From<&T>` and `From<T>`) cannot fail. Texts for people that are longer than a peer would
//! accept are shortened, so that one long message never makes a whole report unacceptable.

mod admin;
mod grid;
mod node;
mod run;
mod tree;
mod types;

pub use node::{DesiredIndex, Held, ReadSync, sync_request};
pub use tree::{for_instance, kind};

use plat_model::id::shorten;
use plat_model::problem::codes;
use plat_model::{Problem, Problems, Result, Timestamp};

/// A wire value that can be read as a model value.
pub trait IntoModel: Sized {
    type Model;

    /// Reads it, noting all that is wrong; `None` if anything is.
    fn read(self, at: &Place, problems: &mut Problems) -> Option<Self::Model>;

    /// # Errors
    /// All that is wrong: [`codes::BAD_MESSAGE`] where the message lacks something or says what does not exist,
    /// [`codes::BAD_NAME`] and [`codes::BAD_VALUE`] for a text, [`codes::TOO_LARGE`] past a limit.
    fn into_model(self) -> Result<Self::Model, Problems> {
        let mut problems = Problems::default();
        let value = self.read(&Place::root(), &mut problems);
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ if problems.is_empty() => Err(Problem::new(codes::BAD_MESSAGE, "a message cannot be read").into()),
            _ => Err(problems),
        }
    }
}

/// A place in a message, e.g. `instances[3].name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// The message itself.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// A field of what is here.
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.into()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The `n`th of what is here, from 0.
    pub fn nth(&self, n: usize) -> Self {
        Self(format!("{}[{n}]", self.0))
    }

    fn wrong(&self, what: impl Into<String>) -> Problem {
        Problem::new(codes::BAD_MESSAGE, what).at(self.0.clone())
    }

    /// Checks the length of a text.
    fn text(&self, text: String, max: usize, problems: &mut Problems) -> Option<String> {
        if text.len() <= max {
            return Some(text);
        }
        problems.push(
            Problem::new(codes::TOO_LARGE, "a text is too long")
                .because(format!("it has {} bytes, {max} are allowed", text.len()))
                .at(self.0.clone()),
        );
        None
    }

    /// Reads a text by a parser of the model.
    fn parse<T>(&self, text: &str, parser: fn(&str) -> Result<T>, problems: &mut Problems) -> Option<T> {
        problems.keep(parser(text).map_err(|problem| problem.at(self.0.clone())))
    }

    /// Reads a message that must be there.
    fn need<W: IntoModel>(&self, wire: Option<W>, problems: &mut Problems) -> Option<W::Model> {
        match wire {
            Some(wire) => wire.read(self, problems),
            None => {
                problems.push(self.wrong("a message lacks what it must have"));
                None
            }
        }
    }

    /// Reads a message that may be missing; the outer `None` is a failure.
    fn maybe<W: IntoModel>(&self, wire: Option<W>, problems: &mut Problems) -> Option<Option<W::Model>> {
        match wire {
            Some(wire) => wire.read(self, problems).map(Some),
            None => Some(None),
        }
    }

    /// Checks how many there are before any of them is looked at.
    fn count(&self, found: usize, max: usize, problems: &mut Problems) -> bool {
        if found > max {
            problems.push(
                Problem::new(codes::TOO_LARGE, "a message holds too many of a thing")
                    .because(format!("{found} are in it, {max} are allowed"))
                    .at(self.0.clone()),
            );
        }
        found <= max
    }

    /// Reads at most `max` messages.
    fn all<W: IntoModel>(&self, wire: Vec<W>, max: usize, problems: &mut Problems) -> Option<Vec<W::Model>> {
        self.each(wire, max, problems, |wire, at, problems| wire.read(at, problems))
    }

    /// Reads at most `max` things with `read`.
    fn each<W, T>(
        &self,
        wire: Vec<W>,
        max: usize,
        problems: &mut Problems,
        read: impl Fn(W, &Self, &mut Problems) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.count(wire.len(), max, problems) {
            return None;
        }
        let many = wire.len();
        let mut values = Vec::with_capacity(many);
        for (n, one) in wire.into_iter().enumerate() {
            // A hostile message must not become an even larger list of complaints.
            if problems.0.len() >= crate::limits::PROBLEMS_MAX {
                return None;
            }
            values.extend(read(one, &self.nth(n), problems));
        }
        (values.len() == many).then_some(values)
    }

    /// Refuses a key that was there before.
    fn twice(&self, key: &str, problems: &mut Problems) {
        problems.push(self.wrong(format!("`{}` is said twice", shorten(key))));
    }

    /// Refuses a time that cannot be written as one (years 1970 to 9999).
    fn time(&self, ms: i64, problems: &mut Problems) -> Option<Timestamp> {
        const END: i64 = 253_402_300_800_000;
        if (0..END).contains(&ms) {
            return Some(Timestamp(ms));
        }
        problems.push(self.wrong("a time is not between 1970 and 9999").because(format!("{ms} ms since 1970")));
        None
    }
}

/// At most `max` bytes of a text, cut between characters; its end is kept, because logs tell the cause last.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_string();
    }
    let mark = "…";
    let mut from = text.len() - (max - mark.len());
    while !text.is_char_boundary(from) {
        from += 1;
    }
    format!("{mark}{}", &text[from..])
}

/// Lets an owned value be written where a borrowed one can be.
macro_rules! owned {
    ($($wire:ty, $model:ty;)*) => {$(
        impl From<$model> for $wire {
            fn from(model: $model) -> Self {
                Self::from(&model)
            }
        }
    )*};
}
pub(crate) use owned;
