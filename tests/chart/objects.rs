//! Looking into rendered objects.

use serde_json::Value;

/// The object's name.
pub fn name(object: &Value) -> String {
    text(&object["metadata"]["name"]).to_owned()
}

/// A string, or nothing.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Pods, and the templates of Pods, which have metadata and a spec as well.
pub fn pods(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter_map(|object| match text(&object["kind"]) {
        "Pod" => Some(object),
        "Deployment" | "Job" => Some(&object["spec"]["template"]),
        _ => None,
    })
}

/// The containers of an object that has any.
pub fn containers(object: &Value) -> Vec<Value> {
    pods(std::slice::from_ref(object))
        .flat_map(|pod| pod["spec"]["containers"].as_array().cloned().unwrap_or_default())
        .collect()
}
