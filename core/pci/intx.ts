const PINS = 4;

/**
 * The interrupt pin (0 to 3) of a bridge that pin `pin` of the device behind it comes out at: each device number rotates the pins by one
 * (PCI-to-PCI Bridge Architecture 1.2, section 9.1). What hosts without a router of their own do as well.
 */
export function rotatedPin(devfn: number, pin: number): number {
  return (pin + (devfn >>> 3)) % PINS;
}

/** The pin that comes out at `pin` of a bridge at `devfn`. */
export function unrotatedPin(devfn: number, pin: number): number {
  return (pin + PINS - ((devfn >>> 3) % PINS)) % PINS;
}
