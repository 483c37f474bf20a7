// SPDX-License-Identifier: GPL-2.0
//
// What a driver is shown of an endpoint in a call is not there after it: facts, tag, and
// the device that is probed.

include!("common/toy.rs");

struct Kept<'a> {
    facts: Option<&'a Endpoint>,
    tag: Option<&'a Tag>,
    function: Option<Function<'a>>,
    probing: Option<&'a Probing<'a, Toy>>,
    requester: u16,
}

fn program(kept: &mut Kept<'static>, endpoint: &Endpoint) {
    kept.requester = endpoint.0;
}

fn probe(kept: &mut Kept<'static>, dev: &Probing<'_, Toy>) -> Result {
    kept.requester = dev.pci()?.source_id().requester_id();
    Ok(())
}

#[cfg(wrong)]
fn keep_facts(kept: &mut Kept<'static>, endpoint: &Endpoint) {
    kept.facts = Some(endpoint); //~ error lifetime may not live long enough
}

#[cfg(wrong)]
fn keep_tag(kept: &mut Kept<'static>, target: &Target<'_, Toy>) {
    if let Target::Paging { tag, .. } = target {
        //~^ error lifetime may not live long enough
        kept.tag = Some(*tag);
    }
}

#[cfg(wrong)]
fn keep_function(kept: &mut Kept<'static>, dev: &Probing<'_, Toy>) -> Result {
    kept.function = Some(dev.pci()?); //~ E0521 `dev` escapes the function body
    Ok(())
}

#[cfg(wrong)]
fn keep_probing(kept: &mut Kept<'static>, dev: &Probing<'_, Toy>) {
    kept.probing = Some(dev); //~ error lifetime may not live long enough
}
