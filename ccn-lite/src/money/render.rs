//! Prices as clients see them.

use std::collections::BTreeMap;

use aleph_message::PaymentType;
use serde_json::{Value, json};

use super::{CostRow, total};

const MIB: f64 = 1_048_576.0;

/// The body of `/price/{hash}` and `/price/estimate`.
pub fn price_json(
    rows: &[CostRow],
    payment: PaymentType,
    charged_address: &str,
    include_size: bool,
) -> Value {
    let cost = total(rows, payment);
    json!({
        "required_tokens": cost.to_f64(),
        "payment_type": payment,
        "cost": cost.to_fixed(),
        "detail": detail_json(rows, include_size),
        "charged_address": charged_address,
    })
}

/// The rows one by one, with their sizes in MiB when asked for.
pub fn detail_json(rows: &[CostRow], include_size: bool) -> Value {
    rows.iter()
        .map(|row| {
            let size_mib = row
                .size_mib
                .as_ref()
                .filter(|_| include_size)
                .map(|size| size.to_f64());
            json!({
                "type": row.cost_type.as_str(),
                "name": row.name,
                "cost_hold": row.hold.to_fixed(),
                "cost_stream": row.stream.to_fixed(),
                "cost_credit": row.credit.to_fixed(),
                "size_mib": size_mib,
            })
        })
        .collect()
}

/// Takes the `estimated_size_mib` fields out of a content to be estimated, which its schema does not know: bytes by the
/// `ref` (or, in a STORE, the `item_hash`) they stand beside.
pub fn take_estimated_sizes(content: &mut Value) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    take(content, "item_hash", &mut sizes);
    for part in ["code", "runtime", "data"] {
        if let Some(part) = content.get_mut(part) {
            take(part, "ref", &mut sizes);
        }
    }
    for volume in content
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        take(volume, "ref", &mut sizes);
    }
    sizes
}

fn take(holder: &mut Value, key: &str, sizes: &mut BTreeMap<String, u64>) {
    let Some(fields) = holder.as_object_mut() else {
        return;
    };
    let mib = match fields.remove("estimated_size_mib") {
        Some(Value::Number(mib)) => mib.as_f64(),
        Some(Value::String(mib)) => mib.parse().ok(),
        _ => None,
    };
    let reference = fields.get(key).and_then(Value::as_str);
    if let (Some(mib), Some(reference)) = (mib.filter(|mib| *mib >= 0.0), reference) {
        // A cast from float saturates.
        sizes.insert(reference.to_owned(), (mib * MIB).ceil() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::CostType;

    #[test]
    fn a_price_has_the_shape_clients_read() {
        let row = CostRow {
            cost_type: CostType::Execution,
            name: "instance".to_owned(),
            reference: None,
            hold: 1000_u64.into(),
            stream: "0.5".parse().unwrap(),
            credit: "3.25".parse().unwrap(),
            size_mib: None,
        };
        assert_eq!(
            price_json(&[row], PaymentType::Credit, "0xA", false),
            json!({"required_tokens": 3.25, "payment_type": "credit", "cost": "3.250000000000000000",
                "detail": [{"type": "EXECUTION", "name": "instance", "cost_hold": "1000.000000000000000000",
                    "cost_stream": "0.500000000000000000", "cost_credit": "3.250000000000000000", "size_mib": null}],
                "charged_address": "0xA"})
        );
    }

    #[test]
    fn estimated_sizes_are_taken_out() {
        let mut content = json!({"item_hash": "h", "estimated_size_mib": 2, "code": {"ref": "c", "estimated_size_mib": 0.5},
            "volumes": [{"ref": "v", "estimated_size_mib": "1"}, {"size_mib": 1}]});
        let sizes = take_estimated_sizes(&mut content);
        assert_eq!(
            sizes,
            BTreeMap::from([
                ("h".into(), 2 << 20),
                ("c".into(), 1 << 19),
                ("v".into(), 1 << 20)
            ])
        );
        assert!(!content.to_string().contains("estimated"));
    }
}
