//! Whether two results of a monitor say the same: counts to the last digit, figures to 1e-9 of them.

use serde_json::Value;

/// Of figures, relative to the larger one.
pub const WITHIN: f64 = 1e-9;

/// Fields that two runs never share.
const OWN: [&str; 4] = ["id", "attempt", "made", "instance"];

/// Where `mine` and `theirs` differ.
pub fn differences(mine: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", mine, theirs, &mut found);
    found
}

fn compare(path: &str, mine: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (mine, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            for key in keys.filter(|key| !(path.is_empty() && OWN.contains(&key.as_str()))) {
                compare(&format!("{path}.{key}"), &mine[key], &theirs[key], found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (at, (mine, theirs)) in one.iter().zip(other).enumerate() {
                compare(&format!("{path}[{at}]"), mine, theirs, found);
            }
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            let (one, other) =
                (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
            if (one - other).abs() > WITHIN * one.abs().max(other.abs()) {
                found.push(format!("{path}: {one} and {other}"));
            }
        }
        _ if mine == theirs => {}
        _ => found.push(format!("{path}: {mine} and {theirs}")),
    }
}
