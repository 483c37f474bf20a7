// SPDX-License-Identifier: GPL-2.0

//! Domain ids of one unit.

use crate::context::Did;
use kernel::{
    id_pool::IdPool,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Ids that no paging domain gets: 0 is how caching mode marks what is not present
/// (VT-d specification, section 6.1), 1 is that of pass-through entries.
const FIRST: usize = 2;

/// The id of every entry that passes DMA through.
pub(crate) const IDENTITY: Did = Did::new(1);

struct Pool {
    ids: IdPool,
    used: usize,
}

/// Free ids of a unit.
#[pin_data]
pub(crate) struct Dids {
    limit: usize,
    #[pin]
    pool: Mutex<Pool>,
}

impl Dids {
    /// All ids of a unit with `count` of them.
    pub(crate) fn new(count: u32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                limit: count as usize,
                pool <- new_mutex!(
                    Pool {
                        ids: IdPool::new(),
                        used: 0,
                    },
                    "vtd domain ids"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// How many ids are in use. Context: may sleep.
    pub(crate) fn used(&self) -> usize {
        self.pool.lock().used
    }

    /// Takes an id. Context: may sleep. Errors: `ENOSPC`, `ENOMEM`.
    fn take(&self) -> Result<Did> {
        loop {
            let request = {
                let mut pool = self.pool.lock();
                if let Some(free) = pool.ids.find_unused_id(FIRST) {
                    if free.as_usize() >= self.limit {
                        return Err(ENOSPC);
                    }
                    let did = u16::try_from(free.as_usize()).map_err(|_| ENOSPC)?;
                    free.acquire();
                    pool.used += 1;
                    return Ok(Did::new(did));
                }
                pool.ids.grow_request()
            };
            let larger = request.ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;
            self.pool.lock().ids.grow(larger);
        }
    }
}

/// A domain id in use. Dropping it frees the id, which the framework does only when
/// no cache of the unit holds entries for it.
pub(crate) struct Tag {
    did: Did,
    dids: Arc<Dids>,
}

impl Tag {
    /// Takes an id. Context: may sleep. Errors: `ENOSPC`, `ENOMEM`.
    pub(crate) fn new(dids: &Arc<Dids>) -> Result<Self> {
        Ok(Self {
            did: dids.take()?,
            dids: dids.clone(),
        })
    }

    /// The id.
    pub(crate) fn did(&self) -> Did {
        self.did
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let mut pool = self.dids.pool.lock();
        pool.ids.release_id(self.did.get().into());
        pool.used -= 1;
    }
}
