/** The device contract finds each kind of broken promise. */
import t from 'tap';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import { type Registers, r32, registerMap } from '../../../core/register/register.ts';
import { field } from '../../../core/state/fields.ts';
import { deviceContract } from '../../../core/testing/contract/contract.ts';

t.setTimeout(240_000);

const map = registerMap('subject', { A: r32(0), B: r32(4, {}, { sticky: true }) });
const properties = { level: prop.u8({ default: 1 }) };
type Class = new (context: DeviceContext<typeof properties>) => Subject;

class Subject extends PciDevice<typeof properties> {
  readonly regs: Registers<typeof map> = this.bind(map, { A: { wrote: value => this.wrote(value) } });
  readonly values = this.state(1, { count: field.u32() });
  readonly later = this.clock.timer('later', () => this.irq.raise());

  wrote(value: number): void {
    this.values.count = value;
    if (value > 0x1000) this.later.arm(value % 1000);
  }
}

const type = (create: Class, declared: object = properties) =>
  deviceType({
    type: 'subject',
    summary: 'A device to break',
    properties: declared as typeof properties,
    pci: { vendor: 0x1b36, device: 0x70fb, class: 0x088000, pin: 'A' },
    bars: { 0: { size: 4096, map } },
    create,
  });

/** Which promises are broken, and how. */
async function brokenBy(create: Class, declared?: object): Promise<Map<string, string>> {
  const broken = new Map<string, string>();
  for (const { name, check } of deviceContract(type(create, declared))) {
    await check().catch((error: unknown) => broken.set(name.replace('subject: ', ''), String(error)));
  }
  return broken;
}

t.test('a good device keeps all', async t => t.same([...(await brokenBy(Subject))], []));

t.test('an access that throws is named', async t => {
  const broken = await brokenBy(
    class extends Subject {
      override wrote(): void {
        throw new RangeError('of a sort');
      }
    },
  );
  t.match(
    broken.get('any offset, width and value never throws'),
    /a write of 0x[0-9a-f]+, \d bytes, at .*RangeError: of a sort/,
  );
});

t.test('state that is not declared', async t => {
  const broken = await brokenBy(
    class extends Subject {
      #hidden = 0;

      override wrote(value: number): void {
        this.#hidden += value;
        this.values.count = this.#hidden >>> 0;
      }

      protected override resetHold(): void {
        this.values.count = this.#hidden++ >>> 0;
      }
    },
  );
  t.match(
    broken.get('reset twice equals once'),
    /a second reset changes 0 subject\.sections\.state\.values\.count: \d+ and \d+/,
  );
});

t.test('what restoring changes', async t => {
  const broken = await brokenBy(
    class extends Subject {
      protected override restored(): void {
        this.values.count++;
      }
    },
  );
  t.match(broken.get('save, mutate, restore equals'), /there differs 0 subject\.sections/);
  t.match(broken.get('another one takes over its state'), /in the copy there differs/);
});

t.test('a line that stays high', async t => {
  const broken = await brokenBy(
    class extends Subject {
      readonly led = this.output('led');

      override wrote(): void {
        this.irq.raise();
        this.#lit = true;
      }
      #lit = false;

      protected override resetExit(): void {
        this.led.set(this.#lit);
        if (this.#lit) this.irq.raise();
      }
    },
  );
  t.match(broken.get('no line stays high after reset'), /PCI interrupt 0, subject \[0\] \(led\) is high/);
});

t.test('what it leaves behind', async t => {
  const broken = await brokenBy(
    class extends Subject {
      protected override realize(): void {
        this.services.clock.timer('mine', () => {}).arm(1e12);
        this.services.system.onPowerdown(() => {});
      }
    },
  );
  t.match(broken.get('unrealize leaves nothing'), /a timer of the virtual clock; 1 listeners/);
});

t.test('properties', async t => {
  const careless = { level: { ...prop.u8({ default: 1 }), parse: (value: unknown) => Number(value) } };
  const takes = await brokenBy(Subject, careless);
  t.match(takes.get('properties out of range are named errors'), /takes level=nonsense/);
  const broken = await brokenBy(
    class extends Subject {
      protected override realize(): void {
        if (this.props.level === 255) throw new TypeError('not by name');
        if (this.props.level === 0) throw new SouthbridgeError('ERR_SUBJECT', 'by name, which is fine');
      }
    },
  );
  t.match(broken.get('properties out of range are named errors'), /level=255 throws TypeError: not by name/);
});

t.test('a device whose bus is not there', async t => {
  const lost = deviceType({ type: 'lost', summary: 'Lost', bus: 'CAN', create: class extends Subject {} });
  const [first] = deviceContract(lost);
  await t.rejects(async () => first?.check(), { code: 'ERR_CONTRACT_BUS', message: /bus of kind CAN/ });
});
