//! Reads tables of a TOML document key by key, noting every problem with its line instead of stopping at the first,
//! and what was never asked for: an unknown key.

use plat_model::problem::{Problem, Problems, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest list that is read.
const LIST_MAX: usize = 1000;

pub(super) struct Reader<'t> {
    name: &'t str,
    text: &'t str,
    problems: Problems,
    /// Where each key was said, `file:line:column` by its dotted name.
    places: BTreeMap<String, String>,
    /// Keys without a value that could be read, by their dotted names.
    lacking: BTreeSet<String>,
}

/// One table. A key that has been read is remembered as known.
pub(super) struct Section<'t> {
    /// Dotted name; empty for the document.
    name: String,
    keys: BTreeMap<String, Spanned<DeValue<'t>>>,
    known: BTreeSet<&'static str>,
}

impl<'t> Reader<'t> {
    pub fn new(name: &'t str, text: &'t str) -> Self {
        Self { name, text, problems: Problems::default(), places: BTreeMap::new(), lacking: BTreeSet::new() }
    }

    /// The whole document. What the syntax allows in spite of errors is read, so that more of them are found.
    pub fn document(&mut self) -> Option<Section<'t>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors.iter().take(LIST_MAX) {
            let place = self.place(error.span().map_or(0, |span| span.start));
            let code = if error.message().contains("duplicate key") { codes::DUPLICATE_KEY } else { codes::BAD_CONFIG };
            self.problems.push(Problem::new(code, "the configuration is not TOML").because(error.message()).at(place));
        }
        if !errors.is_empty() {
            return None;
        }
        Some(self.enter(String::new(), table.into_inner()))
    }

    fn enter(&mut self, name: String, table: DeTable<'t>) -> Section<'t> {
        let mut keys = BTreeMap::new();
        for (key, value) in table {
            let dotted = join(&name, key.get_ref());
            self.places.insert(dotted, self.place(key.span().start));
            keys.insert(key.into_inner().into_owned(), value);
        }
        Section { name, keys, known: BTreeSet::new() }
    }

    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, str::len) + 1;
        format!("{}:{line}:{column}", self.name)
    }

    /// Where the keys were said, in a file of this name.
    pub fn places(&self) -> (String, BTreeMap<String, String>) {
        (self.name.to_owned(), self.places.clone())
    }

    /// Whether this key is wrong or was missed, which has been said.
    pub fn lacks(&self, dotted: &str) -> bool {
        self.lacking.contains(dotted)
    }

    pub fn finish(self) -> Problems {
        self.problems
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn mode(value: &DeValue<'_>) -> Option<u32> {
    let text = value.as_str().filter(|text| (3..=4).contains(&text.len()))?;
    u32::from_str_radix(text, 8).ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()))
}

impl<'t> Section<'t> {
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The value as TOML has it, if `read` accepts it; a problem that says `expected` if not.
    fn take<T>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        let value = self.keys.get(key)?;
        let result = read(value.get_ref());
        if result.is_none() {
            let dotted = join(&self.name, key);
            let what = format!("`{dotted}` must be {expected}");
            reader.lacking.insert(dotted);
            reader.problems.push(Problem::new(codes::BAD_CONFIG, what).at(reader.place(value.span().start)));
        }
        result
    }

    pub fn text(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Option<String> {
        self.take(reader, key, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub fn boolean(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Option<bool> {
        self.take(reader, key, "true or false", |value| value.as_bool())
    }

    pub fn number(&mut self, reader: &mut Reader<'t>, key: &'static str, low: u32, high: u32) -> Option<u32> {
        self.take(reader, key, &format!("a number from {low} to {high}"), |value| {
            let integer = value.as_integer()?;
            let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            (low..=high).contains(&number).then_some(number)
        })
    }

    /// The length of a range.
    pub fn length(&mut self, reader: &mut Reader<'t>, key: &'static str, longest: u8) -> Option<u8> {
        self.number(reader, key, 1, longest.into()).and_then(|length| u8::try_from(length).ok())
    }

    /// Permission bits, as `"0750"`.
    pub fn mode(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Option<u32> {
        self.take(reader, key, "permissions in octal such as \"0750\"", mode)
    }

    /// A table of permission bits.
    pub fn modes(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Option<BTreeMap<String, u32>> {
        let expected = "a table of names and permissions such as { etc = \"0750\" }";
        self.take(reader, key, expected, |value| {
            let table = value.as_table().filter(|table| table.len() <= LIST_MAX)?;
            table.iter().map(|(name, value)| Some((name.get_ref().to_string(), mode(value.get_ref())?))).collect()
        })
    }

    pub fn parsed<T: FromStr>(&mut self, reader: &mut Reader<'t>, key: &'static str, expected: &str) -> Option<T> {
        self.take(reader, key, expected, |value| value.as_str()?.parse().ok())
    }

    pub fn one_of<T: Copy>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.take(reader, key, &format!("one of {}", names.join(", ")), |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    pub fn texts(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Vec<String> {
        let list = self.take(reader, key, &format!("a list of at most {LIST_MAX} texts"), |value| {
            let list = value.as_array().filter(|list| list.len() <= LIST_MAX)?;
            list.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        list.unwrap_or_default()
    }

    /// Reads a table with `read`; one that is missing is read as an empty one.
    pub fn section<T>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'t>, &mut Section<'t>) -> T,
    ) -> T {
        let table = self.take(reader, key, "a table", |value| value.as_table().cloned()).unwrap_or_default();
        let mut section = reader.enter(join(&self.name, key), table);
        let result = read(reader, &mut section);
        section.refuse_rest(reader);
        result
    }

    pub fn missing(&self, reader: &mut Reader<'t>, key: &str) {
        if self.has(key) {
            return; // It is there but wrong, which has been said.
        }
        let dotted = join(&self.name, key);
        let what = format!("the key `{dotted}` is missing");
        reader.lacking.insert(dotted);
        let fix =
            "`node-format init` writes a configuration that fits the machine, `node-format example` prints every key";
        reader.problems.push(Problem::new(codes::MISSING_KEY, what).at(reader.name).fix(fix));
    }

    /// Notes each key that nothing asked for.
    pub fn refuse_rest(&self, reader: &mut Reader<'t>) {
        for key in self.keys.keys().filter(|key| !self.known.contains(key.as_str())) {
            let dotted = join(&self.name, key);
            let known: Vec<_> = self.known.iter().copied().collect();
            let place = reader.places.get(&dotted).cloned().unwrap_or_default();
            let what = format!("`{}` is not a key of the configuration", plat_model::id::shorten(&dotted));
            let fix = format!("the keys here are {}", known.join(", "));
            reader.problems.push(Problem::new(codes::UNKNOWN_KEY, what).at(place).fix(fix));
        }
    }
}
