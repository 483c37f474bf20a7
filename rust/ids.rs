// SPDX-License-Identifier: GPL-2.0

//! Numbers of 16 bits that one unit's caches are keyed by.

use kernel::{
    id_pool::IdPool,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

struct Pool {
    ids: IdPool,
    used: usize,
}

/// Free numbers of a unit.
#[pin_data]
pub struct Ids {
    first: usize,
    limit: usize,
    #[pin]
    pool: Mutex<Pool>,
}

impl Ids {
    /// All numbers from `first` on, below `limit`. Errors: `ENOMEM`.
    pub fn new(first: u16, limit: u32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                first: first.into(),
                limit: limit as usize,
                pool <- new_mutex!(
                    Pool {
                        ids: IdPool::new(),
                        used: 0,
                    },
                    "iommu ids"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// How many are in use. Context: may sleep.
    pub fn used(&self) -> usize {
        self.pool.lock().used
    }

    fn take(&self) -> Result<u16> {
        loop {
            let request = {
                let mut pool = self.pool.lock();
                if let Some(free) = pool.ids.find_unused_id(self.first) {
                    if free.as_usize() >= self.limit {
                        return Err(ENOSPC);
                    }
                    let id = u16::try_from(free.as_usize()).map_err(|_| ENOSPC)?;
                    free.acquire();
                    pool.used += 1;
                    return Ok(id);
                }
                pool.ids.grow_request()
            };
            let larger = request.ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;
            self.pool.lock().ids.grow(larger);
        }
    }
}

/// A number in use. Dropping it frees the number: as a driver's
/// [`Tag`](crate::driver::Driver::Tag), only when no cache of the unit holds entries for it.
pub struct Id {
    id: u16,
    ids: Arc<Ids>,
}

impl Id {
    /// Takes a number. Context: may sleep. Errors: `ENOSPC`, `ENOMEM`.
    pub fn new(ids: &Arc<Ids>) -> Result<Self> {
        Ok(Self {
            id: ids.take()?,
            ids: ids.clone(),
        })
    }

    /// The number.
    pub fn get(&self) -> u16 {
        self.id
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        let mut pool = self.ids.pool.lock();
        pool.ids.release_id(self.id.into());
        pool.used -= 1;
    }
}
