import { blkdebugDriver } from './blkdebug.ts';
import { fileDriver, hostDeviceDriver } from './file.ts';
import { blkverifyDriver } from './filters/blkverify.ts';
import { compressDriver } from './filters/compress.ts';
import { copyBeforeWriteDriver } from './filters/copy-before-write.ts';
import { copyOnReadDriver } from './filters/copy-on-read.ts';
import { preallocateDriver } from './filters/preallocate.ts';
import { snapshotAccessDriver } from './filters/snapshot-access.ts';
import { throttleDriver } from './filters/throttle.ts';
import { BlockGraph } from './graph.ts';
import { luksDriver } from './luks/luks.ts';
import { nbdDriver } from './nbd/client.ts';
import { nullAioDriver, nullCoDriver } from './null.ts';
import { qcow2Driver } from './qcow2/driver.ts';
import { quorumDriver } from './quorum.ts';
import { rawDriver } from './raw.ts';
import { vdiDriver } from './vdi/driver.ts';
import { vhdxDriver } from './vhdx/driver.ts';
import { vmdkDriver } from './vmdk/driver.ts';
import { vpcDriver } from './vpc/driver.ts';

/** A block graph with all drivers that there are. */
export function blockGraph(): BlockGraph {
  return new BlockGraph([
    fileDriver,
    hostDeviceDriver,
    nullCoDriver,
    nullAioDriver,
    nbdDriver,
    qcow2Driver,
    luksDriver,
    vpcDriver,
    vdiDriver,
    vmdkDriver,
    vhdxDriver,
    rawDriver,
    blkdebugDriver,
    throttleDriver,
    copyOnReadDriver,
    copyBeforeWriteDriver,
    snapshotAccessDriver,
    compressDriver,
    preallocateDriver,
    blkverifyDriver,
    quorumDriver,
  ]);
}
