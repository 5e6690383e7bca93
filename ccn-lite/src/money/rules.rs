//! Which ways of paying are open, and what is free, by the time of the message.

use aleph_message::{Body, Content, ErrorCode, PaymentType, Rejection};

use crate::config::Cutoffs;

/// How a content is paid; held tokens unless it says otherwise.
pub fn payment_type(content: &Content) -> PaymentType {
    content
        .payment()
        .map_or(PaymentType::Hold, |payment| payment.payment_type)
}

/// Whether a content of this kind keeps a machine busy all the time.
fn is_always_on(content: &Content) -> bool {
    match &content.body {
        Body::Instance(_) | Body::VerifiableProgram(_) => true,
        Body::Program(program) => program.is_persistent(),
        _ => false,
    }
}

/// Refuses ways of paying that had ended when the message was made (`time`, Unix seconds).
///
/// # Errors
/// `INVALID_PAYMENT_METHOD`.
pub fn check_payment_method(
    content: &Content,
    time: f64,
    cutoffs: &Cutoffs,
) -> Result<(), Rejection> {
    let payment = payment_type(content);
    let costs = matches!(
        content.body,
        Body::Store(_) | Body::Program(_) | Body::Instance(_) | Body::VerifiableProgram(_)
    );
    if !costs || payment == PaymentType::Credit {
        return Ok(());
    }
    let ended = time >= cutoffs.credit_only as f64
        || (is_always_on(content) && time >= cutoffs.hold_and_stream as f64);
    if ended {
        let reason = format!(
            "Payment by {payment} is no longer accepted for this message; pay with credits"
        );
        return Err(Rejection::new(ErrorCode::InvalidPaymentMethod, reason));
    }
    Ok(())
}

/// Whether nothing has to be owned for this content: files and on-demand programs from before they were charged, and small
/// files (`file_bytes` up to `small_bytes`) for those who hold tokens.
pub fn is_free(
    content: &Content,
    time: f64,
    file_bytes: u64,
    small_bytes: u64,
    cutoffs: &Cutoffs,
) -> bool {
    let uncharged = time < cutoffs.store_and_program_cost as f64;
    match &content.body {
        Body::Store(_) => {
            let small = payment_type(content) == PaymentType::Hold
                && file_bytes <= small_bytes
                && time < cutoffs.credit_only as f64;
            uncharged || small
        }
        Body::Program(program) => uncharged && !program.is_persistent(),
        Body::Instance(_) | Body::VerifiableProgram(_) => false,
        Body::Post(_) | Body::Aggregate(_) | Body::Forget(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use aleph_message::MessageType;
    use serde_json::json;

    use super::*;

    fn store(payment: &str) -> Content {
        let content = json!({"address": "0xA", "time": 1.0, "item_type": "storage", "item_hash": "a".repeat(64),
            "payment": {"type": payment}});
        Content::parse(MessageType::Store, content).unwrap()
    }

    fn instance(payment: &str) -> Content {
        let content = json!({"address": "0xA", "time": 1.0, "allow_amend": false, "environment": {}, "resources": {},
            "rootfs": {"parent": {"ref": "a".repeat(64)}, "persistence": "host", "size_mib": 1},
            "payment": {"type": payment}});
        Content::parse(MessageType::Instance, content).unwrap()
    }

    const CUTOFFS: Cutoffs = Cutoffs {
        store_and_program_cost: 100,
        hold_and_stream: 200,
        credit_only: 300,
        credit_precision: 0,
    };

    #[test]
    fn ways_of_paying_end_at_their_time() {
        let code = |content: &Content, time| {
            check_payment_method(content, time, &CUTOFFS)
                .err()
                .map(|r| r.code)
        };
        assert_eq!(code(&instance("hold"), 199.9), None);
        assert_eq!(
            code(&instance("hold"), 200.0),
            Some(ErrorCode::InvalidPaymentMethod)
        );
        assert_eq!(
            code(&instance("superfluid"), 200.0),
            Some(ErrorCode::InvalidPaymentMethod)
        );
        assert_eq!(code(&instance("credit"), 400.0), None);
        assert_eq!(code(&store("hold"), 299.0), None);
        assert_eq!(
            code(&store("hold"), 300.0),
            Some(ErrorCode::InvalidPaymentMethod)
        );
    }

    #[test]
    fn old_and_small_files_are_free() {
        let free = |content: &Content, time, bytes| is_free(content, time, bytes, 25, &CUTOFFS);
        assert!(free(&store("credit"), 99.0, 1000));
        assert!(free(&store("hold"), 150.0, 25));
        assert!(!free(&store("hold"), 150.0, 26));
        assert!(!free(&store("hold"), 300.0, 25));
        assert!(!free(&store("credit"), 150.0, 25));
        assert!(!free(&instance("hold"), 1.0, 0));
    }
}
