//! The header fields of an exchange that are looked at.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A few header fields, in the order in which they came.
///
/// Of each exchange a handful of fields is picked, looked at some ten times, and let go of. A
/// [`HeaderMap`] hashes each name for that and reserves two tables; here names are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Fields {
    /// Adds a field behind the others.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// As [`Self::append`], in place of those of the same name.
    #[cfg(test)]
    pub fn set(&mut self, name: &'static str, value: HeaderValue) {
        self.0.retain(|(known, _)| known.as_str() != name);
        self.append(HeaderName::from_static(name), value);
    }

    /// The first value of `name`, which is in lower case.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&HeaderValue> {
        let name = name.as_ref();
        self.0.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
    }

    /// All values of `name`, which is in lower case, in order.
    pub fn get_all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f HeaderValue> {
        self.0.iter().filter(move |(known, _)| known.as_str() == name).map(|(_, value)| value)
    }

    /// True where there is a field of that name, which is in lower case.
    pub fn contains(&self, name: impl AsRef<str>) -> bool {
        self.get(name).is_some()
    }

    /// The names, each once for every field of it.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl From<&HeaderMap> for Fields {
    fn from(headers: &HeaderMap) -> Self {
        headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_names_and_stay_in_order() {
        let field = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut fields = Fields::from_iter([field("a", "1"), field("b", "2")]);
        fields.append(HeaderName::from_static("a"), HeaderValue::from_static("3"));
        assert_eq!(fields.get("a").map(HeaderValue::as_bytes), Some(&b"1"[..]));
        let all: Vec<_> = fields.get_all("a").collect();
        assert_eq!(all, ["1", "3"]);
        assert!(fields.contains("b") && !fields.contains("c"));
        assert_eq!(fields.names().map(HeaderName::as_str).collect::<Vec<_>>(), ["a", "b", "a"]);
    }
}
