// SPDX-License-Identifier: GPL-2.0

//! Virtio devices, for IOMMUs that are one: a queue of requests, and a queue of events.
//!
//! C headers: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use crate::{
    bindings,
    raw, //
};
use core::ptr::NonNull;
use kernel::{
    container_of,
    device,
    error::{
        from_result,
        to_result, //
    },
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    types::Opaque,
    ModuleMetadata, //
};

pub mod answers;

mod events;
mod requests;

use self::{
    events::Events,
    requests::Requests, //
};
pub use self::{
    events::{
        EventHandler,
        EVENT_MAX, //
    },
    requests::{
        Answer,
        Counters,
        Judge,
        Request,
        RequestQueue, //
    },
};

/// VIRTIO_F_VERSION_1.
const F_VERSION_1: u32 = 32;
/// VIRTIO_RING_F_INDIRECT_DESC.
const F_INDIRECT_DESC: u32 = 28;

/// What a driver of virtio devices is for.
pub struct Kind {
    /// The driver's name.
    pub name: &'static CStr,
    /// The devices' type.
    pub id: u32,
    /// Feature bits that the driver knows.
    pub features: &'static [u32],
    /// Bytes of an event, [`EVENT_MAX`] at most.
    pub event_bytes: usize,
}

/// A device that was found. It may be taken away at any time: its queues then fail all that they are
/// asked, at once.
#[pin_data]
pub struct Device {
    /// The C device, until it is taken away.
    #[pin]
    vdev: Mutex<Option<NonNull<bindings::virtio_device>>>,
    /// Which C device this is; compared only.
    identity: usize,
    parent: ARef<device::Device>,
    #[pin]
    requests: Requests,
    #[pin]
    events: Events,
}

// SAFETY: The pointer is used with the lock held; the core keeps the device until `remove`.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    /// Sets a device's queues up. Context: the virtio driver's probe.
    ///
    /// # Safety
    ///
    /// `vdev` is being probed.
    unsafe fn new(vdev: NonNull<bindings::virtio_device>, kind: &Kind) -> Result<Arc<Self>> {
        // SAFETY: By the contract.
        if !unsafe { bindings::rust_iommu_virtio_has_feature(vdev.as_ptr(), F_VERSION_1) } {
            return Err(ENODEV);
        }
        // SAFETY: By the contract.
        let dev = unsafe { bindings::rust_iommu_virtio_device(vdev.as_ptr()) };
        // SAFETY: As above.
        let parent = unsafe { (*dev).parent };
        if parent.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: A device keeps its parent.
        let parent = unsafe { raw::device(parent) }.into();
        let identity = vdev.as_ptr().addr();
        let this = Arc::pin_init(
            try_pin_init!(Self {
                vdev <- new_mutex!(Some(vdev), "iommu virtio device"),
                identity,
                parent,
                requests <- Requests::new()?,
                events <- Events::new(kind.event_bytes)?,
            }? Error),
            GFP_KERNEL,
        )?;
        let mut queues = [core::ptr::null_mut(); 2];
        let mut infos = [
            bindings::virtqueue_info {
                name: c"requests".as_char_ptr(),
                // Polled.
                callback: None,
                ctx: false,
            },
            bindings::virtqueue_info {
                name: c"events".as_char_ptr(),
                callback: Some(event_callback),
                ctx: false,
            },
        ];
        // For the callback; the queue's own word is the transport's.
        // SAFETY: The device is being probed, and the word is the driver's.
        unsafe { (*dev).driver_data = Arc::as_ptr(&this).cast_mut().cast() };
        // SAFETY: The device is being probed; both arrays have two elements.
        to_result(unsafe {
            bindings::rust_iommu_virtio_find_vqs(
                vdev.as_ptr(),
                2,
                queues.as_mut_ptr(),
                infos.as_mut_ptr(),
            )
        })?;
        // SAFETY: Made just now; they stay until `take_away`.
        unsafe { this.requests.start(queues[0]) };
        // SAFETY: As above.
        unsafe { this.events.start(queues[1]) };
        // SAFETY: Probed, and not said to be ready before.
        unsafe { bindings::rust_iommu_virtio_ready(vdev.as_ptr()) };
        if let Err(e) = this.events.fill() {
            this.take_away(true);
            return Err(e);
        }
        Ok(this)
    }

    /// Ends all use of the C device. `expected`: whoever uses it has ended that before.
    fn take_away(&self, expected: bool) {
        let mut vdev = self.vdev.lock();
        let Some(vdev) = vdev.take() else {
            return;
        };
        self.requests.stop(expected);
        // SAFETY: The core keeps the device over `remove`. The device uses no memory after that.
        unsafe { bindings::virtio_reset_device(vdev.as_ptr()) };
        self.events.stop();
        // SAFETY: As above; nobody has the queues any more, as both were stopped.
        unsafe { bindings::rust_iommu_virtio_del_vqs(vdev.as_ptr()) };
    }

    fn with<R>(&self, f: impl FnOnce(*mut bindings::virtio_device) -> R) -> Result<R> {
        let vdev = self.vdev.lock();
        vdev.map(|vdev| f(vdev.as_ptr())).ok_or(ENODEV)
    }

    /// The device that the virtio device is a part of: a PCI function, mostly.
    pub fn parent(&self) -> &device::Device {
        &self.parent
    }

    /// Resets the device, which forgets all that it was told. It is not used after that.
    ///
    /// Context: may sleep.
    pub fn reset(&self) {
        self.take_away(true);
    }

    /// Whether a feature was agreed on. Errors: `ENODEV`. Context: may sleep.
    pub fn has_feature(&self, bit: u32) -> Result<bool> {
        // SAFETY: The lock keeps the device; its features do not change.
        self.with(|vdev| unsafe { bindings::rust_iommu_virtio_has_feature(vdev, bit) })
    }

    /// Reads a part of the device's configuration: fields of 32 bits, or of 64, and a rest of bytes. It must
    /// have one: fields are there with the features that they belong to, and the kernel stops at what is
    /// beyond the end.
    ///
    /// Errors: `ENODEV`. Context: may sleep.
    pub fn read_config(&self, offset: u32, to: &mut [u8]) -> Result {
        // SAFETY: The lock keeps the device; there is room for so many bytes.
        self.with(|vdev| unsafe {
            bindings::rust_iommu_virtio_config_read(vdev, offset, to.as_mut_ptr().cast(), to.len())
        })
    }

    /// Writes a byte of the device's configuration. Errors: `ENODEV`. Context: may sleep.
    pub fn write_config(&self, offset: u32, value: u8) -> Result {
        // SAFETY: The lock keeps the device.
        self.with(|vdev| unsafe { bindings::rust_iommu_virtio_config_write(vdev, offset, value) })
    }

    /// Has events given to `handler`, once and for all. Those from before are lost.
    pub fn handle_events(&self, handler: Arc<dyn EventHandler>) {
        self.events.set_handler(handler);
    }
}

/// Devices that were found, and those to come.
struct Found {
    devices: KVec<Arc<Device>>,
    /// One could not be used, as the log says.
    failed: bool,
    /// No more are taken.
    closed: bool,
}

/// A driver of virtio devices, registered.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub struct Devices {
    /// First, so that its address is that of the whole.
    #[pin]
    raw: Opaque<bindings::virtio_driver>,
    ids: [bindings::virtio_device_id; 2],
    kind: &'static Kind,
    #[pin]
    found: Mutex<Found>,
    registered: Atomic<bool>,
}

// SAFETY: The C driver is the core's from registration on.
unsafe impl Send for Devices {}
// SAFETY: As above.
unsafe impl Sync for Devices {}

impl Devices {
    /// Registers a driver, for the module that `M` describes. It is given all devices of its kind
    /// that no other driver has.
    ///
    /// Context: may sleep. Errors: `ENOMEM`, and what the core returns.
    pub fn register<M: ModuleMetadata>(kind: &'static Kind) -> Result<Pin<KBox<Self>>> {
        let id = bindings::virtio_device_id {
            device: kind.id,
            // VIRTIO_DEV_ANY_ID
            vendor: u32::MAX,
        };
        let mut raw: bindings::virtio_driver = pin_init::zeroed();
        raw.driver.name = kind.name.as_char_ptr();
        // Endpoints depend on it for as long as the module is there.
        raw.driver.suppress_bind_attrs = true;
        raw.feature_table = kind.features.as_ptr();
        raw.feature_table_size = u32::try_from(kind.features.len())?;
        raw.validate = Some(validate);
        raw.probe = Some(probe);
        raw.remove = Some(remove);
        raw.shutdown = Some(shutdown);
        raw.freeze = Some(freeze);
        let this = KBox::pin_init(
            pin_init!(Self {
                raw: Opaque::new(raw),
                ids: [id, bindings::virtio_device_id { device: 0, vendor: 0 }],
                kind,
                found <- new_mutex!(
                    Found { devices: KVec::new(), failed: false, closed: false },
                    "iommu virtio devices"
                ),
                registered: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;
        let raw = this.raw.get();
        // SAFETY: Not registered yet, so nobody else has it.
        unsafe { (*raw).id_table = this.ids.as_ptr() };
        // SAFETY: Filled in above, and pinned until the drop, which unregisters it.
        let registered =
            unsafe { bindings::__register_virtio_driver(raw, M::THIS_MODULE.as_ptr()) };
        to_result(registered)?;
        this.registered.store(true, Relaxed);
        Ok(this)
    }

    /// Whether a device was found that could not be used, for which there is a line in the log.
    pub fn has_failed(&self) -> bool {
        self.found.lock().failed
    }

    /// The devices that were found. No more are taken from here on. Errors: `ENOMEM`.
    pub fn close(&self) -> Result<KVec<Arc<Device>>> {
        let mut found = self.found.lock();
        let mut devices = KVec::with_capacity(found.devices.len(), GFP_KERNEL)?;
        for device in &found.devices {
            devices.push(device.clone(), GFP_KERNEL)?;
        }
        found.closed = true;
        Ok(devices)
    }
}

#[pinned_drop]
impl PinnedDrop for Devices {
    fn drop(self: Pin<&mut Self>) {
        if !self.registered.load(Relaxed) {
            return;
        }
        // SAFETY: Registered. Every device is removed before this returns.
        unsafe { bindings::unregister_virtio_driver(self.raw.get()) };
    }
}

/// The callback of a device's second queue.
///
/// # Safety
///
/// Called by the virtio core as this, for a queue that [`Device::new`] has made.
unsafe extern "C" fn event_callback(queue: *mut bindings::virtqueue) {
    // SAFETY: By the contract.
    let vdev = unsafe { (*queue).vdev };
    // SAFETY: A queue's device.
    let dev = unsafe { bindings::rust_iommu_virtio_device(vdev) };
    // SAFETY: `Device::new` wrote it before there were queues. Callbacks have ended before they go
    // (`take_away`), and somebody has a reference to the `Device` until after that.
    let device = unsafe { &*(*dev).driver_data.cast::<Device>() };
    device.events.handle();
}

/// The driver that a device is being bound to, or unbound from.
///
/// # Safety
///
/// Called in a callback of the driver, with the device.
unsafe fn driver_of<'a>(vdev: *mut bindings::virtio_device) -> &'a Devices {
    // SAFETY: By the contract.
    let dev = unsafe { bindings::rust_iommu_virtio_device(vdev) };
    // SAFETY: By the contract.
    let driver = raw::driver(unsafe { raw::device(dev) }).cast_mut();
    // SAFETY: The driver is the one whose callback this is, and is part of a `virtio_driver`.
    let driver = unsafe { container_of!(driver, bindings::virtio_driver, driver) };
    // SAFETY: It is the first member of a `Devices` (`repr(C)`; `Opaque` has the layout of its
    // content), which waits for its callbacks before it goes.
    unsafe { &*driver.cast::<Devices>() }
}

/// `virtio_driver::validate`.
///
/// # Safety
///
/// Called by the virtio core as this operation.
unsafe extern "C" fn validate(vdev: *mut bindings::virtio_device) -> c_int {
    // Requests would need memory each.
    // SAFETY: By the contract; features are being agreed on.
    unsafe { bindings::rust_iommu_virtio_clear_feature(vdev, F_INDIRECT_DESC) };
    0
}

/// `virtio_driver::probe`.
///
/// # Safety
///
/// Called by the virtio core as this operation, of a driver that is part of a [`Devices`].
unsafe extern "C" fn probe(vdev: *mut bindings::virtio_device) -> c_int {
    from_result(|| {
        // SAFETY: By the contract.
        let driver = unsafe { driver_of(vdev) };
        let mut found = driver.found.lock();
        if found.closed {
            pr_err!("a device that comes later is not used\n");
            return Err(ENODEV);
        }
        let vdev = NonNull::new(vdev).ok_or(EINVAL)?;
        let reserved = found.devices.reserve(1, GFP_KERNEL).map_err(Error::from);
        // SAFETY: By the contract.
        let device = reserved.and_then(|()| unsafe { Device::new(vdev, driver.kind) });
        let device = device.inspect_err(|e| {
            pr_err!("a virtio device cannot be used: error {}\n", e.to_errno());
            found.failed = true;
        })?;
        found.devices.push(device, GFP_KERNEL)?;
        Ok(0)
    })
}

/// `virtio_driver::remove`.
///
/// # Safety
///
/// Called by the virtio core as this operation, of a driver that is part of a [`Devices`].
unsafe extern "C" fn remove(vdev: *mut bindings::virtio_device) {
    // SAFETY: By the contract.
    let driver = unsafe { driver_of(vdev) };
    let mut found = driver.found.lock();
    let at = found
        .devices
        .iter()
        .position(|device| device.identity == vdev.addr());
    let device = at.and_then(|at| found.devices.remove(at).ok());
    drop(found);
    if let Some(device) = device {
        device.take_away(false);
    }
}

/// `virtio_driver::shutdown`. Devices behind it are shut down after it, and need it for that.
///
/// # Safety
///
/// None.
unsafe extern "C" fn shutdown(_vdev: *mut bindings::virtio_device) {}

/// `virtio_driver::freeze`. A device that sleeps forgets what it was told, and so would let nothing
/// through for those behind it that wake up before it; it is told nothing a second time.
///
/// # Safety
///
/// None.
unsafe extern "C" fn freeze(_vdev: *mut bindings::virtio_device) -> c_int {
    pr_err!("a virtio device is in use as an IOMMU, and cannot be suspended\n");
    EBUSY.to_errno()
}
