//! Checks JSON against a schema: the keywords that the schemas in `docs/schema` use, and no others.

use serde_json::Value;

/// Keywords without a meaning for the check.
const COMMENTS: [&str; 6] = [
    "$schema",
    "$id",
    "$defs",
    "title",
    "description",
    "examples",
];

/// What is wrong with `value`; nothing if it is as `schema` says. References are within `root`.
pub(crate) fn violations(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let keywords = schema.as_object().expect("a schema is an object");
    let mut violations = Vec::new();
    for (keyword, argument) in keywords {
        match &**keyword {
            "$ref" => {
                let name = argument.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root.pointer(name).expect("references have targets");
                violations.extend(self::violations(root, target, value));
            }
            "type" if !has_type(argument, value) => {
                violations.push(format!("{value} is not of type {argument}"));
            }
            "const" if value != argument => violations.push(format!("{value} is not {argument}")),
            "enum" if !argument.as_array().unwrap().contains(value) => {
                violations.push(format!("{value} is not one of {argument}"));
            }
            "minimum" if value.is_number() && value.as_f64() < argument.as_f64() => {
                violations.push(format!("{value} is below {argument}"));
            }
            "required" if value.is_object() => violations.extend(missing(argument, value)),
            "properties" => {
                for (name, property) in argument.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        violations.extend(self::violations(root, property, value));
                    }
                }
            }
            "additionalProperties" => {
                violations.extend(additional(
                    root,
                    keywords.get("properties"),
                    argument,
                    value,
                ));
            }
            "items" => {
                for value in value.as_array().into_iter().flatten() {
                    violations.extend(self::violations(root, argument, value));
                }
            }
            "oneOf" => {
                let alternatives = argument.as_array().unwrap().iter();
                let fitting =
                    alternatives.filter(|it| self::violations(root, it, value).is_empty());
                if fitting.count() != 1 {
                    violations.push(format!("not one of the alternatives: {value}"));
                }
            }
            "type" | "const" | "enum" | "minimum" | "required" => {}
            comment if COMMENTS.contains(&comment) => {}
            other => panic!("the keyword {other} is not supported"),
        }
    }
    violations
}

/// The fields among `names` that `value` does not have.
fn missing(names: &Value, value: &Value) -> Vec<String> {
    let names = names.as_array().unwrap().iter().filter_map(Value::as_str);
    let missing = names.filter(|name| value.get(name).is_none());
    missing
        .map(|name| format!("{name} is missing: {value}"))
        .collect()
}

/// What is wrong with the fields of `value` that are not among `properties`.
fn additional(
    root: &Value,
    properties: Option<&Value>,
    schema: &Value,
    value: &Value,
) -> Vec<String> {
    let fields = value.as_object().into_iter().flatten();
    let others = fields.filter(|(name, _)| properties.is_none_or(|all| all.get(name).is_none()));
    others
        .flat_map(|(name, value)| match schema {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => vec![format!("{name} is not described: {value}")],
            schema => violations(root, schema, value),
        })
        .collect()
}

fn has_type(names: &Value, value: &Value) -> bool {
    match names {
        Value::Array(names) => names.iter().any(|name| has_type(name, value)),
        name => match name.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("the type {other} is not supported"),
        },
    }
}

#[test]
fn violations_are_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "type": ["integer", "null"], "minimum": 1 }, "b": { "$ref": "#/$defs/b" } },
        "$defs": { "b": { "oneOf": [{ "const": "x" }, { "items": { "enum": [1, 2] }, "type": "array" }] } }
    });
    let count = |value: Value| violations(&schema, &schema, &value).len();
    assert_eq!(count(serde_json::json!({ "a": 1, "b": "x" })), 0);
    assert_eq!(count(serde_json::json!({ "a": null, "b": [1, 2] })), 0);
    assert_eq!(count(serde_json::json!({ "a": 0, "b": [3] })), 2);
    assert_eq!(count(serde_json::json!({ "b": "x", "c": 1 })), 2);
    assert_eq!(count(serde_json::json!("a")), 1);
}
