//! What a machine costs: compute units, volumes, and the part of the volumes that comes with the units.

use aleph_message::{GpuRequirement, MachineResources, PaymentType};

use super::costs::amounts;
use super::volume::Volume;
use super::{ComputeUnit, CostError, CostRow, CostType, Decimal, Product, Rates, Tariff, total};

/// What runs.
pub(super) struct Machine<'a> {
    pub product: Product,
    pub resources: &'a MachineResources,
    /// How often its compute units are charged.
    pub multiplier: u64,
}

fn units(resources: &MachineResources, unit: &ComputeUnit) -> u64 {
    u64::from(resources.vcpus).max(resources.memory.div_ceil(unit.memory_mib))
}

/// The rows of a machine without GPUs.
pub(super) fn costs(
    machine: &Machine<'_>,
    volumes: Vec<Volume>,
    payment: PaymentType,
    tariff: &Tariff,
) -> Result<Vec<CostRow>, CostError> {
    let unit = unit(machine.product, tariff)?;
    let charged = units(machine.resources, unit).saturating_mul(machine.multiplier);
    let mut rows = vec![execution(machine.product, charged, payment, tariff)?];
    rows.extend(storage(
        machine.product,
        machine.resources,
        volumes,
        payment,
        tariff,
    )?);
    Ok(rows)
}

/// The rows of an instance with GPUs: an execution row for each product its cards belong to. What it has in processors
/// and memory beyond them is charged with the dearer product, and so is all of its storage.
pub(super) fn gpu_costs(
    resources: &MachineResources,
    gpus: &[GpuRequirement],
    volumes: Vec<Volume>,
    payment: PaymentType,
    tariff: &Tariff,
) -> Result<Vec<CostRow>, CostError> {
    let mut products = tariff.gpus.units(gpus, &tariff.prices)?;
    let sum: u64 = products.iter().map(|(_, units)| units).sum();
    let premium = |(product, _): &(Product, u64)| *product == Product::InstanceGpuPremium;
    let dominant = products.iter().position(premium).unwrap_or(0);
    if let Some((product, charged)) = products.get_mut(dominant) {
        let needed = units(resources, unit(*product, tariff)?);
        *charged = charged.saturating_add(needed.saturating_sub(sum));
    }
    let mut rows = products
        .into_iter()
        .map(|(product, charged)| execution(product, charged, payment, tariff))
        .collect::<Result<Vec<_>, _>>()?;
    rows.extend(storage(
        Product::InstanceGpuPremium,
        resources,
        volumes,
        payment,
        tariff,
    )?);
    Ok(rows)
}

fn unit(product: Product, tariff: &Tariff) -> Result<&ComputeUnit, CostError> {
    let unit = tariff.price(product)?.unit.as_ref();
    unit.ok_or(CostError::Unpriced(product.key()))
}

fn execution(
    product: Product,
    units: u64,
    payment: PaymentType,
    tariff: &Tariff,
) -> Result<CostRow, CostError> {
    let rates = tariff.price(product)?.compute.by_second();
    let amounts = amounts(&units.into(), &rates, payment);
    Ok(CostRow {
        cost_type: CostType::Execution,
        name: product.key().to_owned(),
        reference: None,
        hold: amounts.hold,
        stream: amounts.stream,
        credit: amounts.credit,
        size_mib: None,
    })
}

/// The rows of the volumes, and one that takes off what the compute units include.
fn storage(
    product: Product,
    resources: &MachineResources,
    volumes: Vec<Volume>,
    payment: PaymentType,
    tariff: &Tariff,
) -> Result<Vec<CostRow>, CostError> {
    let unit = unit(product, tariff)?;
    let rates = tariff.price(product)?.storage.by_second();
    let mut rows: Vec<CostRow> = volumes
        .into_iter()
        .map(|volume| volume.row(&rates, payment))
        .collect();
    let included = Decimal::from(units(resources, unit).saturating_mul(unit.disk_mib));
    let discount = |payment: PaymentType, rate: &Decimal| {
        total(&rows, payment)
            .min(included.times(rate))
            .negated()
            .floored()
    };
    let discount = Rates {
        hold: discount(PaymentType::Hold, &rates.hold),
        stream: discount(PaymentType::Superfluid, &rates.stream),
        credit: discount(PaymentType::Credit, &rates.credit),
    };
    rows.push(CostRow {
        cost_type: CostType::VolumeDiscount,
        name: CostType::VolumeDiscount.as_str().to_owned(),
        reference: None,
        hold: discount.hold,
        stream: discount.stream,
        credit: discount.credit,
        size_mib: None,
    });
    Ok(rows)
}
