use super::*;

#[test]
fn every_kind_has_status_conditions_columns_and_the_category() {
    for definition in custom_resource_definitions() {
        let names = &definition.spec.names;
        assert_eq!(names.categories.as_deref(), Some(&["carrack".to_owned()][..]), "{}", names.kind);
        for version in &definition.spec.versions {
            assert!(
                version.subresources.as_ref().is_some_and(|found| found.status.is_some()),
                "{}",
                names.kind
            );
            assert!(
                version.additional_printer_columns.as_ref().is_some_and(|found| found.len() > 3),
                "{}",
                names.kind
            );
        }
    }
}

/// Paths of properties that have no description, below a schema.
fn undocumented(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let Some(properties) = schema.get("properties").and_then(|value| value.as_object()) else {
        for below in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(below).filter(|schema| schema.is_object()) {
                undocumented(schema, path, found);
            }
        }
        return;
    };
    for (name, schema) in properties {
        let path = format!("{path}.{name}");
        if schema.get("description").is_none() && !["apiVersion", "kind", "metadata"].contains(&&**name) {
            found.push(path.clone());
        }
        undocumented(schema, &path, found);
    }
}

#[test]
fn every_field_is_documented() {
    for definition in custom_resource_definitions() {
        let mut found = Vec::new();
        for version in &definition.spec.versions {
            let schema = version
                .schema
                .as_ref()
                .and_then(|schema| schema.open_api_v3_schema.as_ref())
                .expect("a schema");
            undocumented(
                &serde_json::to_value(schema).expect("JSON"),
                &definition.spec.names.kind,
                &mut found,
            );
        }
        found.retain(|path| !path.ends_with(".spec") && !path.ends_with(".status"));
        assert!(found.is_empty(), "without a description: {found:?}");
    }
}
