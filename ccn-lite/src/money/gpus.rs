//! Which GPUs the network knows, and what kind of machine they make.

use std::collections::BTreeMap;

use aleph_message::GpuRequirement;
use serde_json::Value;

use super::{CostError, Prices, Product};

/// Models of GPU by their PCI vendor and device, from `compatible_gpus` of the network's `settings` aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompatibleGpus(BTreeMap<String, String>);

impl CompatibleGpus {
    /// Reads the content of the `settings` aggregate; entries without device or model are left out.
    pub fn from_aggregate(settings: &Value) -> Self {
        let entries = settings.get("compatible_gpus").and_then(Value::as_array);
        let mut models = BTreeMap::new();
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            if let (Some(device), Some(model)) = (text("device_id"), text("model")) {
                // The first entry of a device counts.
                models.entry(device).or_insert(model);
            }
        }
        Self(models)
    }

    /// Compute units of each product that `gpus` need, in the order in which they are first named.
    ///
    /// # Errors
    /// For a device or model without a price.
    pub(super) fn units(
        &self,
        gpus: &[GpuRequirement],
        prices: &Prices,
    ) -> Result<Vec<(Product, u64)>, CostError> {
        let mut units: Vec<(Product, u64)> = Vec::new();
        for gpu in gpus {
            let model = self
                .0
                .get(&gpu.device_id)
                .ok_or_else(|| CostError::UnknownGpu(gpu.device_id.clone()))?;
            let (product, more) = [Product::InstanceGpuPremium, Product::InstanceGpuStandard]
                .into_iter()
                .find_map(|product| Some((product, *prices.of(product)?.gpus.get(model)?)))
                .ok_or_else(|| CostError::UnpricedGpu(model.clone()))?;
            match units.iter_mut().find(|(known, _)| *known == product) {
                Some((_, sum)) => *sum = sum.saturating_add(more),
                None => units.push((product, more)),
            }
        }
        Ok(units)
    }
}
