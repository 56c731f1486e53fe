//! Texts in the XML documents of object stores and their services. Pure.
//!
//! These documents have no nested elements of one name, and attributes in the outermost element only.

use std::borrow::Cow;

/// The text in the first element `name` of a document.
pub(in crate::http) fn element(xml: &str, name: &str) -> Option<String> {
    let content = elements(xml, name).next()?;
    Some(unescaped(content.trim()).into_owned())
}

/// What is in each element `name` of a document.
pub(in crate::http) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (content, after) = after.split_once(&end)?;
        rest = after;
        Some(content)
    })
}

/// `text` with the characters that entities stand for. What is none of them stays as it is.
fn unescaped(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('&');
    let first = parts.next().unwrap_or_default();
    if first.len() == text.len() {
        return Cow::Borrowed(text);
    }
    let mut plain = first.to_owned();
    for part in parts {
        let entity = part.split_once(';');
        match entity.and_then(|(name, rest)| Some((character(name)?, rest))) {
            Some((character, rest)) => {
                plain.push(character);
                plain.push_str(rest);
            }
            None => {
                plain.push('&');
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

/// The character that the entity `name` stands for.
fn character(name: &str) -> Option<char> {
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        "amp" => return Some('&'),
        _ => name.strip_prefix('#')?,
    };
    let code = match number.strip_prefix('x') {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => number.parse().ok()?,
    };
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_elements_without_their_entities() {
        let xml = "<L xmlns=\"x\"><A> a&amp;lt;b&#39;&#x2B;&nbsp;&c </A><B/><A>2</A></L>";
        assert_eq!(element(xml, "A").as_deref(), Some("a&lt;b'+&nbsp;&c"));
        assert_eq!(elements(xml, "A").count(), 2);
        assert_eq!(element(xml, "B"), None);
    }
}
