// SPDX-License-Identifier: GPL-2.0

//! After the pause: what was asked for, forgotten or left is put in order.

use kernel::prelude::*;

use super::{Handoff, CHANGE_WAIT_NS};
use crate::abi::control::phase;
use crate::back;
use crate::operation::Outcome;
use crate::sys::STATE;
impl Handoff<'_> {
    /// After the pause: devices change, the payload begins its background work, the old one forgets, and what
    /// nobody claimed is released.
    pub(super) fn serve(&mut self) -> Outcome {
        let unchanged = self.change_devices();
        let errors = back::resume(self.turn, self.candidate, unchanged)?;
        self.count_inverse_errors(errors);
        let errors = back::let_go(self.turn)?;
        self.count_inverse_errors(errors);
        self.lap(phase::RELEASE);
        Ok(())
    }

    /// Makes of the devices what the payload asked for. Returns how many could not be changed.
    fn change_devices(&mut self) -> u32 {
        let mut unchanged: u32 = 0;
        for at in 0..self.report.devices as usize {
            let wanted = {
                let mut state = STATE.lock();
                let device = state.devices.get_mut(at);
                device.and_then(|device| {
                    let wanted = device.wanted.take()?;
                    // Somebody may have opened it since it was asked for.
                    let open = device.disk.opens().count() != 0;
                    let fits = device.spec.check_change(&wanted, open).map_err(|_| EBUSY);
                    Some((device.disk.clone(), device.spec.changed_to(&wanted), fits))
                })
            };
            let Some((disk, spec, fits)) = wanted else {
                continue;
            };
            match fits.and_then(|()| disk.change(&spec, CHANGE_WAIT_NS)) {
                Ok(()) => {
                    self.report.changed = self.report.changed.saturating_add(1);
                    if let Some(device) = STATE.lock().devices.get_mut(at) {
                        device.spec = spec;
                    }
                }
                Err(error) => {
                    pr_err!("atom{} stays as it was: {}\n", disk.id(), error.to_errno());
                    unchanged = unchanged.saturating_add(1);
                }
            }
        }
        unchanged
    }
}
