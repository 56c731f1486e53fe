//! S-expressions as libgcrypt writes them: Guix's keys, signatures and ACL.
//!
//! ```text
//! sexp = "(" { sexp } ")" | atom
//! atom = TOKEN | "#" HEX "#" | "|" BASE64 "|" | '"' TEXT '"' | LENGTH ":" BYTES
//! ```
//!
//! An atom is a string of bytes; its spelling has no meaning, so values compare by bytes. Atoms
//! may touch each other. A token is made of letters, digits and `-./_:*+=` and does not begin
//! with a digit; hex and base64 may hold white space; text has C's escapes; a length has no
//! leading zero. Display hints in brackets are not known here, as Guix never writes them.
//!
//! Limits: [`MAX_BYTES`] and [`MAX_DEPTH`]; nothing but white space may follow the value.

use std::fmt;

use data_encoding::{BASE64, HEXUPPER, HEXUPPER_PERMISSIVE};

/// The longest text accepted: an ACL of thousands of keys.
pub const MAX_BYTES: usize = 1 << 20;

/// How many lists may be inside each other; signatures need four.
pub const MAX_DEPTH: usize = 32;

/// An atom or a list of values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sexp {
    /// A string of bytes.
    Atom(Vec<u8>),
    /// Values in order.
    List(Vec<Sexp>),
}

/// Why a text is no s-expression. Offsets count bytes from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SexpError {
    /// The text is longer than [`MAX_BYTES`].
    #[error("an s-expression of {0} bytes is too long")]
    TooLong(usize),
    /// Lists inside each other beyond [`MAX_DEPTH`].
    #[error("lists inside each other too deeply at byte {0}")]
    TooDeep(usize),
    /// The text ends inside a list or an atom, or there is none.
    #[error("the s-expression ends early")]
    Truncated,
    /// A byte that no value can begin with, or a `)` too many.
    #[error("unexpected `{}` at byte {offset}", .byte.escape_ascii())]
    Unexpected {
        /// The byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// What stands between `#` or `|` is not whole bytes in hex or base64, an escape is not known,
    /// or a length is not a number.
    #[error("the atom at byte {0} is malformed")]
    Atom(usize),
    /// Something follows the value.
    #[error("text follows the s-expression at byte {0}")]
    Trailing(usize),
}

impl Sexp {
    /// Parses `text`, in any mixture of the notations.
    ///
    /// # Errors
    /// See [`SexpError`].
    pub fn parse(text: &[u8]) -> Result<Self, SexpError> {
        if text.len() > MAX_BYTES {
            return Err(SexpError::TooLong(text.len()));
        }

        let mut scanner = SexpScanner { text, at: 0 };
        let value = scanner.value()?;
        scanner.skip_blanks();

        if scanner.at < text.len() {
            Err(SexpError::Trailing(scanner.at))
        } else {
            Ok(value)
        }
    }

    /// An atom.
    pub fn atom(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Atom(bytes.into())
    }

    /// A list of the atom `tag` and `values`.
    pub fn tagged(tag: &str, values: impl IntoIterator<Item = Self>) -> Self {
        Self::List(std::iter::once(Self::atom(tag)).chain(values).collect())
    }

    /// The bytes, if this is an atom.
    #[must_use]
    pub fn as_atom(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(bytes) => Some(bytes),
            Self::List(_) => None,
        }
    }

    /// The values behind the atom `tag`, if this is a list that begins with it.
    #[must_use]
    pub fn behind_tag(&self, tag: &str) -> Option<&[Self]> {
        match self {
            Self::List(values) => match values.split_first()? {
                (Self::Atom(first), rest) if first == tag.as_bytes() => Some(rest),
                _ => None,
            },
            Self::Atom(_) => None,
        }
    }

    /// Exactly `N` values behind the atom `tag`.
    #[must_use]
    pub fn exactly<const N: usize>(&self, tag: &str) -> Option<&[Self; N]> {
        self.behind_tag(tag)?.try_into().ok()
    }

    /// The one atom behind the atom `tag`.
    #[must_use]
    pub fn atom_behind_tag(&self, tag: &str) -> Option<&[u8]> {
        let [value] = self.exactly(tag)?;
        value.as_atom()
    }

    /// The canonical form, each atom as length and bytes: the only spelling, to be hashed.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_canonical(&mut bytes);
        bytes
    }

    fn write_canonical(&self, to: &mut Vec<u8>) {
        match self {
            Self::Atom(bytes) => {
                to.extend_from_slice(bytes.len().to_string().as_bytes());
                to.push(b':');
                to.extend_from_slice(bytes);
            }
            Self::List(values) => {
                to.push(b'(');
                values.iter().for_each(|value| value.write_canonical(to));
                to.push(b')');
            }
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Self::Atom(bytes) if is_token(bytes) => bytes
                .iter()
                .try_for_each(|&byte| write!(f, "{}", char::from(byte))),
            Self::Atom(bytes) if bytes.is_empty() => f.write_str("\"\""),
            Self::Atom(bytes) => write!(f, "#{}#", HEXUPPER.encode(bytes)),
            Self::List(values) => {
                f.write_str("(")?;
                for (position, value) in values.iter().enumerate() {
                    match value {
                        Self::List(_) => write!(f, "\n{:1$}", "", indent + 1)?,
                        Self::Atom(_) if position > 0 => f.write_str(" ")?,
                        Self::Atom(_) => {}
                    }
                    value.write(f, indent + 1)?;
                }
                f.write_str(")")
            }
        }
    }
}

/// The advanced form that libgcrypt reads, each nested list on a line of its own.
impl fmt::Display for Sexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

struct SexpScanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl SexpScanner<'_> {
    /// Reads one value. Open lists are kept in a vector, so that nesting uses no stack.
    fn value(&mut self) -> Result<Sexp, SexpError> {
        let mut open: Vec<Vec<Sexp>> = Vec::new();
        loop {
            self.skip_blanks();
            let offset = self.at;
            let complete = match self.next()? {
                b'(' if open.len() == MAX_DEPTH => return Err(SexpError::TooDeep(offset)),
                b'(' => {
                    open.push(Vec::new());
                    continue;
                }
                b')' => match open.pop() {
                    Some(values) => Sexp::List(values),
                    None => return Err(SexpError::Unexpected { byte: b')', offset }),
                },
                first => Sexp::Atom(self.atom(first, offset)?),
            };

            match open.last_mut() {
                Some(list) => list.push(complete),
                None => return Ok(complete),
            }
        }
    }

    /// Reads the rest of the atom whose `first` byte, at `offset`, has been read.
    fn atom(&mut self, first: u8, offset: usize) -> Result<Vec<u8>, SexpError> {
        let malformed = SexpError::Atom(offset);
        match first {
            b'#' => {
                let digits = self.until(b'#')?;
                HEXUPPER_PERMISSIVE.decode(&digits).map_err(|_| malformed)
            }
            b'|' => {
                let digits = self.until(b'|')?;
                BASE64.decode(&digits).map_err(|_| malformed)
            }
            b'"' => self.quoted(offset),
            b'0'..=b'9' => self.verbatim(offset),
            _ if is_token_byte(first) => {
                let rest = &self.text[self.at..];
                let end = rest.iter().position(|&byte| !is_token_byte(byte));
                self.at += end.unwrap_or(rest.len());
                Ok(self.text[offset..self.at].to_owned())
            }
            byte => Err(SexpError::Unexpected { byte, offset }),
        }
    }

    /// Reads up to the next `end`, and returns what is before it without white space.
    fn until(&mut self, end: u8) -> Result<Vec<u8>, SexpError> {
        let rest = &self.text[self.at..];
        let length = memchr::memchr(end, rest).ok_or(SexpError::Truncated)?;
        self.at += length + 1;

        Ok(rest[..length]
            .iter()
            .copied()
            .filter(|&byte| !is_blank(byte))
            .collect())
    }

    fn verbatim(&mut self, offset: usize) -> Result<Vec<u8>, SexpError> {
        let rest = &self.text[offset..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length = std::str::from_utf8(&rest[..digits])
            .ok()
            .and_then(|text| text.parse().ok());
        let has_zero_in_front = digits > 1 && rest[0] == b'0';
        let length: usize = length
            .filter(|_| !has_zero_in_front)
            .ok_or(SexpError::Atom(offset))?;

        match rest.get(digits) {
            Some(b':') => {}
            Some(_) => return Err(SexpError::Atom(offset)),
            None => return Err(SexpError::Truncated),
        }
        let bytes = rest[digits + 1..]
            .get(..length)
            .ok_or(SexpError::Truncated)?;
        self.at = offset + digits + 1 + length;

        Ok(bytes.to_owned())
    }

    fn quoted(&mut self, offset: usize) -> Result<Vec<u8>, SexpError> {
        let malformed = SexpError::Atom(offset);
        let mut bytes = Vec::new();
        loop {
            let byte = match self.next()? {
                b'"' => return Ok(bytes),
                b'\\' => match self.escape().ok_or(malformed)? {
                    Some(byte) => byte,
                    None => continue,
                },
                plain => plain,
            };
            bytes.push(byte);
        }
    }

    /// Reads an escape, and returns its byte; `Some(None)` for the end of a line.
    fn escape(&mut self) -> Option<Option<u8>> {
        let byte = match self.next().ok()? {
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            byte @ (b'"' | b'\'' | b'\\') => byte,
            b'x' => self.digits(2, 16)?,
            b'0'..=b'3' => {
                self.at -= 1;
                self.digits(3, 8)?
            }
            line_end @ (b'\n' | b'\r') => {
                let other = if line_end == b'\n' { b'\r' } else { b'\n' };
                if self.text.get(self.at) == Some(&other) {
                    self.at += 1;
                }
                return Some(None);
            }
            _ => return None,
        };

        Some(Some(byte))
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<u8> {
        let digits = self.text.get(self.at..self.at + count)?;
        self.at += count;
        let is_plain = digits
            .iter()
            .all(|&digit| char::from(digit).is_digit(radix));
        let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;

        u8::from_str_radix(text, radix).ok()
    }

    fn next(&mut self) -> Result<u8, SexpError> {
        let byte = self
            .text
            .get(self.at)
            .copied()
            .ok_or(SexpError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_blanks(&mut self) {
        let blanks = self.text[self.at..]
            .iter()
            .take_while(|&&byte| is_blank(byte))
            .count();
        self.at += blanks;
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-./_:*+=".contains(&byte)
}

fn is_token(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| !first.is_ascii_digit())
        && bytes.iter().all(|&byte| is_token_byte(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Sexp, SexpError> {
        Sexp::parse(text.as_bytes())
    }

    fn list(atoms: &[&[u8]]) -> Sexp {
        Sexp::List(atoms.iter().map(|&bytes| Sexp::atom(bytes)).collect())
    }

    #[test]
    fn an_atom_is_its_bytes_however_spelled() {
        for spelling in [
            "abc",
            "#616263#",
            "# 61 6\n2 63 #",
            "|YWJj|",
            "| YW Jj |",
            "\"abc\"",
            "3:abc",
            " abc\n",
            "\"\\141\\x62c\"",
            "\"ab\\\nc\"",
            "\"ab\\\r\nc\"",
        ] {
            assert_eq!(parse(spelling), Ok(Sexp::atom("abc")), "{spelling}");
        }
        let escapes = parse(r#""\b\t\v\n\f\r\"\'\\\377""#).unwrap();
        assert_eq!(escapes, Sexp::atom(*b"\x08\t\x0b\n\x0c\r\"'\\\xff"));
        for empty in ["\"\"", "0:", "##", "||"] {
            assert_eq!(parse(empty), Ok(Sexp::atom("")), "{empty}");
        }
    }

    #[test]
    fn atoms_may_touch() {
        for text in ["(a#61#)", "(a\"a\")", "(a|YQ==|)", "(1:a1:a)", "(a 1:a)"] {
            assert_eq!(parse(text), Ok(list(&[b"a", b"a"])), "{text}");
        }
        let nested = parse("(a()(b))").unwrap();
        assert_eq!(
            nested.exactly("a"),
            Some(&[Sexp::List(vec![]), list(&[b"b"])])
        );
    }

    #[test]
    fn malformed_texts_are_refused() {
        let unexpected = |byte, offset| SexpError::Unexpected { byte, offset };
        for (text, error) in [
            ("", SexpError::Truncated),
            ("(", SexpError::Truncated),
            ("(a (b)", SexpError::Truncated),
            ("\"abc", SexpError::Truncated),
            ("\"abc\\", SexpError::Atom(0)),
            ("#61", SexpError::Truncated),
            ("|YQ==", SexpError::Truncated),
            ("4:abc", SexpError::Truncated),
            ("4", SexpError::Truncated),
            (")", unexpected(b')', 0)),
            ("(a))", SexpError::Trailing(3)),
            ("(a) b", SexpError::Trailing(4)),
            ("#616#", SexpError::Atom(0)),
            ("(#6g#)", SexpError::Atom(1)),
            ("|Y|", SexpError::Atom(0)),
            ("3#616263#", SexpError::Atom(0)),
            ("99999999999999999999:a", SexpError::Atom(0)),
            ("(01:a)", SexpError::Atom(1)),
            ("\"\\q\"", SexpError::Atom(0)),
            ("\"\\400\"", SexpError::Atom(0)),
            ("\"\\x+1\"", SexpError::Atom(0)),
            ("(a [b] c)", unexpected(b'[', 3)),
            ("{", unexpected(b'{', 0)),
            ("(a,b)", unexpected(b',', 2)),
            ("(\u{e9})", unexpected(0xc3, 1)),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn depth_and_length_are_limited() {
        let nested = |depth| "(".repeat(depth) + &")".repeat(depth);
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(
            parse(&nested(MAX_DEPTH + 1)),
            Err(SexpError::TooDeep(MAX_DEPTH))
        );
        let long = "a".repeat(MAX_BYTES + 1);
        assert_eq!(parse(&long), Err(SexpError::TooLong(MAX_BYTES + 1)));
    }

    #[test]
    fn prints_as_libgcrypt_reads() {
        let text = "(acl\n (entry\n  (public-key\n   (ecc\n    (curve Ed25519)\n    (q #00FF#)))\n  \
                    (tag\n   (guix import))))";
        assert_eq!(parse(text).unwrap().to_string(), text);
        let canonical = b"(3:tag(4:guix6:import))";
        assert_eq!(
            parse("(tag (guix import))").unwrap().to_canonical(),
            canonical
        );
        assert_eq!(Sexp::parse(canonical), parse("(tag (guix import))"));
    }

    fn values() -> impl Strategy<Value = Sexp> {
        let atom = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            "[a-z0-9.:=-]{0,9}".prop_map(String::into_bytes),
        ];
        atom.prop_map(Sexp::Atom).prop_recursive(5, 50, 5, |inner| {
            prop::collection::vec(inner, 0..5).prop_map(Sexp::List)
        })
    }

    proptest! {
        #[test]
        fn parse_inverts_print(value in values()) {
            prop_assert_eq!(parse(&value.to_string()), Ok(value.clone()));
            prop_assert_eq!(Sexp::parse(&value.to_canonical()), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in r##"[()#|"\\x0-9a-f: \n]{0,40}"##,
        ) {
            let _ = Sexp::parse(&bytes);
            let _ = parse(&text);
        }
    }
}
