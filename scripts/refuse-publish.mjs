// `npm publish` of a folder reads the manifest again after packing, when `postpack` has already taken the
// optionalDependencies out: the registry would list a package that installs no binary. The release
// workflow publishes the tarballs that `npm pack` made, for which npm does not run this script.

import { main, StepFailed } from './setup.mjs';

await main(() => {
  throw new StepFailed('Publish the packed tarball, not the folder: see "Releasing" in CONTRIBUTING.md.');
});
