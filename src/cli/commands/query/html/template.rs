//! Fills a template with data. All text is escaped; there is no way to insert text that is not.
//!
//! `{{name}}` is the value of that name, of the innermost section that has one. `{{#name}}...{{/name}}`
//! appears once for each element of a list, or once if the value is neither empty nor zero nor
//! false, and `{{^name}}...{{/name}}` if it is. Templates are part of this program; in a wrong one, what
//! is not understood is left out.

use serde_json::Value;

use crate::format::escape::printable;

/// The text of `template` with the values of `data`.
#[must_use]
pub(super) fn fill(template: &str, data: &Value) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    fill_into(&mut text, template, &mut vec![data]);
    text
}

fn fill_into(text: &mut String, template: &str, scopes: &mut Vec<&Value>) {
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((tag, behind)) = behind.split_once("}}") else {
            return;
        };
        rest = behind;

        let is_section = tag.starts_with(['#', '^']);
        if !is_section {
            push_escaped(text, find(scopes, tag));
            continue;
        }
        let name = &tag[1..];
        let Some((section, behind)) = rest.split_once(&*format!("{{{{/{name}}}}}")) else {
            return;
        };
        rest = behind;

        let value = find(scopes, name);
        match value {
            Value::Array(elements) if tag.starts_with('#') => {
                for element in elements {
                    scopes.push(element);
                    fill_into(text, section, scopes);
                    scopes.pop();
                }
            }
            value if is_empty(value) == tag.starts_with('^') => {
                scopes.push(value);
                fill_into(text, section, scopes);
                scopes.pop();
            }
            _ => {}
        }
    }
    text.push_str(rest);
}

/// The value of `name` in the innermost scope that has one.
fn find<'a>(scopes: &[&'a Value], name: &str) -> &'a Value {
    let mut inward = scopes.iter().rev();
    inward
        .find_map(|scope| scope.get(name))
        .unwrap_or(&Value::Null)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(_) => false,
    }
}

/// Adds a value as text that is safe in HTML, in text and between quotes. Controls, bidirectional
/// ones too, are shown as escapes.
fn push_escaped(text: &mut String, value: &Value) {
    let plain = match value {
        Value::Null | Value::Array(_) | Value::Object(_) => return,
        Value::String(plain) => plain.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };

    for c in printable(&plain).chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_from_the_innermost_section_outward() {
        let data = json!({
            "name": "outer", "list": [{ "name": "a" }, { "other": 1 }], "none": [], "zero": 0,
            "object": { "name": "inner" },
        });
        let cases = [
            ("{{name}} {{missing}}.", "outer ."),
            ("{{#list}}({{name}}{{other}}){{/list}}", "(a)(outer1)"),
            ("{{#none}}x{{/none}}{{^none}}no{{/none}}", "no"),
            ("{{#zero}}x{{/zero}}{{^zero}}0{{/zero}}", "0"),
            ("{{#object}}{{name}}{{/object}} {{name}}", "inner outer"),
            ("{{^object}}x{{/object}}{{#object", ""),
        ];
        for (template, expected) in cases {
            assert_eq!(fill(template, &data), expected, "{template}");
        }
    }

    #[test]
    fn all_text_is_escaped() {
        let hostile = "<script>alert('1')</script>\"&\u{202e}\u{1b}[31m\u{200b}";
        let data = json!({ "text": hostile, "list": [{ "text": hostile }] });
        let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;\\u{202e}\\u{1b}[31m\\u{200b}";
        let filled = fill(
            "<a title=\"{{text}}\">{{#list}}{{text}}{{/list}}</a>",
            &data,
        );
        assert_eq!(filled, format!("<a title=\"{escaped}\">{escaped}</a>"));
        // A value that looks like a tag is text.
        let tag = json!({ "text": "{{secret}}", "secret": "x" });
        assert_eq!(fill("{{text}}", &tag), "{{secret}}");
    }
}
