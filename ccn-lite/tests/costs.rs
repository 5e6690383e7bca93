//! Prices against a table made by another implementation of the network's formulas: `costs/make.py`, in Python.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

use std::collections::HashMap;

use aleph_message::{Content, ItemHash, MessageType, PaymentType};
use ccn_lite::money::{
    CompatibleGpus, CostRow, Decimal, Prices, Tariff, costs, required_credits, total,
};
use serde_json::{Value, json};

/// Hands out a reference for every file, and remembers how large it is.
#[derive(Default)]
struct Files(HashMap<String, u64>);

impl Files {
    fn add(&mut self, size: &Value) -> String {
        let reference = format!("{:064x}", self.0.len() + 1);
        if let Some(size) = size.as_u64() {
            self.0.insert(reference.clone(), size);
        }
        reference
    }
}

fn volume(files: &mut Files, volume: &Value) -> Value {
    let mut entry = match volume[0].as_str().unwrap() {
        "file" => {
            let known = !volume[2].is_null();
            let reference = if known {
                files.add(&volume[2])
            } else {
                "f".repeat(64)
            };
            json!({"ref": reference})
        }
        "ephemeral" => json!({"ephemeral": true, "size_mib": volume[2]}),
        _ => json!({"persistence": "host", "size_mib": volume[2]}),
    };
    if !volume[1].is_null() {
        entry["mount"] = volume[1].clone();
    }
    entry
}

fn content(w: &Value, payment: &str, files: &mut Files) -> Content {
    let mut content = json!({"address": "0xA", "time": 1.0, "payment": {"type": payment}});
    let kind = match w["kind"].as_str().unwrap() {
        "store" => {
            content["item_type"] = json!("storage");
            content["item_hash"] = json!(files.add(&w["file"]));
            MessageType::Store
        }
        "program" => {
            content["type"] = json!("vm-function");
            content["on"] = json!({"http": true, "persistent": w["persistent"]});
            content["environment"] = json!({"internet": w["internet"]});
            content["code"] =
                json!({"encoding": "zip", "entrypoint": "m", "ref": files.add(&w["code"])});
            content["runtime"] = json!({"ref": files.add(&w["runtime"]), "comment": ""});
            if !w["data"].is_null() {
                content["data"] =
                    json!({"encoding": "zip", "mount": "/d", "ref": files.add(&w["data"])});
            }
            MessageType::Program
        }
        _ => {
            content["environment"] = json!({"hypervisor": "qemu"});
            if w["confidential"] == json!(true) {
                content["environment"]["trusted_execution"] = json!({});
            }
            let parent = json!({"ref": files.add(&json!(1))});
            content["rootfs"] =
                json!({"parent": parent, "persistence": "host", "size_mib": w["rootfs"]});
            let gpus = w["gpus"].as_array().unwrap().iter().map(|device| {
                json!({"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": device})
            });
            let gpus: Vec<Value> = gpus.collect();
            if !gpus.is_empty() {
                content["requirements"] =
                    json!({"gpu": gpus, "node": {"node_hash": "a".repeat(64)}});
            }
            MessageType::Instance
        }
    };
    if kind != MessageType::Store {
        content["allow_amend"] = json!(false);
        content["resources"] = json!({"vcpus": w["vcpus"], "memory": w["memory"]});
        let volumes = w["volumes"].as_array().unwrap();
        content["volumes"] = volumes.iter().map(|v| volume(files, v)).collect();
    }
    Content::parse(kind, content).unwrap_or_else(|error| panic!("{w}: {error:?}"))
}

/// A row as the table writes it: the kind's number, a name that is not the kind's own, and the amounts.
fn as_written(row: &CostRow, kinds: &[String]) -> Value {
    let plain = |amount: &Decimal| {
        let text = amount.to_fixed();
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let kind = row.cost_type.as_str();
    let name = Some(&row.name).filter(|name| *name != kind);
    let number = kinds.iter().position(|known| known == kind).unwrap();
    json!([
        number,
        name,
        plain(&row.hold),
        plain(&row.stream),
        plain(&row.credit)
    ])
}

#[test]
fn thousands_of_workloads_cost_what_another_implementation_says() {
    let mut lines = include_str!("costs/workloads.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = lines.next().unwrap();
    let kinds: Vec<String> = serde_json::from_value(head["kinds"].clone()).unwrap();
    let gpus = CompatibleGpus::from_aggregate(&head["settings"]);
    let lists = head["pricing"].as_array().unwrap();
    let prices = std::iter::once(Prices::default()).chain(
        lists
            .iter()
            .map(|list| Prices::from_aggregate(list).unwrap()),
    );
    let tariffs: Vec<Tariff> = prices
        .map(|prices| Tariff {
            prices,
            gpus: gpus.clone(),
        })
        .collect();
    let mut checked = 0;
    for line in lines {
        let mut files = Files::default();
        let payment: PaymentType = line["pay"].as_str().unwrap().parse().unwrap();
        let content = content(&line["w"], payment.as_str(), &mut files);
        let tariff = &tariffs[line["list"].as_u64().unwrap() as usize];
        let size_of = |reference: &ItemHash, _| files.0.get(reference.as_str()).copied();
        let rows = costs(&content, payment, tariff, &size_of).unwrap();
        let written: Value = rows.iter().map(|row| as_written(row, &kinds)).collect();
        assert_eq!(written, line["rows"], "{line}");
        let sum = total(&rows, payment);
        let decimal = |name: &str| line[name].as_str().unwrap().parse::<Decimal>().unwrap();
        assert_eq!(sum.floored(), decimal("total"), "{line}");
        if payment == PaymentType::Credit {
            assert_eq!(required_credits(&sum), decimal("day"), "{line}");
        }
        checked += 1;
    }
    assert!(checked >= 3000, "{checked}");
}
