//! A page that lists what the document says.

use serde_json::Value;

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Core channel node</title>\
    <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    code{background:#8882;padding:.1rem .3rem}li{margin:.3rem 0}</style></head><body>";

/// Lists every operation with its parameters. Names and texts are this program's own, without markup in them.
pub fn render(document: &Value) -> String {
    let mut html = format!(
        "{HEAD}<h1>Core channel node {}</h1><p>{}</p>\
         <p>The same for programs: <a href=\"/api/docs/openapi.json\">OpenAPI document</a>.</p><ul>",
        text(&document["info"]["version"]),
        text(&document["info"]["description"])
    );
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let method = method.to_uppercase();
            html += &format!(
                "<li><code>{method} {path}</code> {}",
                text(&operation["summary"])
            );
            let names: Vec<String> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| format!("<code>{}</code>", text(&parameter["name"])))
                .collect();
            if !names.is_empty() {
                html += &format!("<br>{}", names.join(" "));
            }
            html += "</li>";
        }
    }
    html + "</ul></body></html>"
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
