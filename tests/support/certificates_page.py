"""The page `docs/certificates.md`: the certificate of every named model, as a table.

python tests/support/certificates_page.py > docs/certificates.md
"""

import sys
from collections.abc import Sequence

from tlbench.certify import TWIN, VALUE_TOLERANCE, Certificate, certify, named_models
from tlbench.console import CERTIFICATE_HEADINGS, certificate_row, misprint_notes
from tlbench.measure.flops import PROFILER_MAX_MACS
from tlbench.models.publication import MISPRINT_MARK, TOLERANCE

COMMAND = "python tests/support/certificates_page.py > docs/certificates.md"

INTRODUCTION = f"""\
<!-- Made by `{COMMAND}`. -->

# Certificates

Every system of the publication, every variant and every kind of model, held against
what was made apart from it. `tlbench models --certify --thorough` does it again, and
ends with exit code 1 where anything disagrees; with names it certifies those models.

```sh
tlbench models --certify                        # all of them: 82 s on two CPU cores
tlbench models --certify --thorough             # executes the large ones too: 16 min
tlbench models --certify 'ViT-B/16+TL8@{{1/4,1/2}}' --json
```

- **parameters**: those of the built model with the closed form, layer by layer, exactly
- **torch**: multiply-adds by torch's `FlopCounterMode` on the meta device with the
  closed form, layer by layer, exactly
- **DeepSpeed**: the same by DeepSpeed's `FlopsProfiler`, which executes the model, with
  torch's, module by module, exactly; models above {PROFILER_MAX_MACS / 1e9:.0f} GMACs
  only with `--thorough`, and as far as memory allows: 24 GiB hold all of them
- **tokens**: into the first block and into the last, counted where they enter, with the
  closed form
- **values**: the model's own TokenLearner and TokenFuser and, of images without pooling
  between blocks, a whole model of its depth and width {TWIN["embed_dim"]}; in
  float64, with weights drawn for it, with the formulas in NumPy
  (`tlbench.models.reference`); {VALUE_TOLERANCE:.0e} of the largest value is allowed
  for rounding
- **published GFLOPS**, **ours**, **ratio**: multiply-adds and half of all other
  operations, as the papers count ([publication.md](publication.md)); the printed digits
  and {100 * TOLERANCE:g} % are allowed; {MISPRINT_MARK} marks what is misprinted
- **verdict**: ok where nothing disagrees, but for the misprints; published numbers of
  parameters are checked too

One check has no column: with TokenLearner behind the last block, a narrow model of the
same depth gives the same bits as the plain ViT of the same seed.

DeepSpeed's profiler is exact on real tensors for the operators that these models use
(`linear`, `conv2d`, `conv3d`, `matmul`, `scaled_dot_product_attention`). It counts
`einsum` as nothing, and on the meta device nearly everything twice. Torch's counter is
exact on the meta device; on CPU tensors it does not see fused attention.

## Models
"""


def page(certificates: Sequence[Certificate]) -> str:
    lines = [
        f"| {' | '.join(CERTIFICATE_HEADINGS)} |",
        "|" + "---|" * len(CERTIFICATE_HEADINGS),
    ]
    for certificate in certificates:
        name, *cells = certificate_row(certificate)
        lines.append(f"| {' | '.join([f'`{name}`', *cells])} |")
    notes = [f"- {note}" for note in misprint_notes(certificates)]
    return "\n".join([INTRODUCTION, *lines, "", *notes, ""])


if __name__ == "__main__":
    certificates = [
        certify(spec, classes, is_thorough=True) for spec, classes in named_models()
    ]
    sys.stdout.write(page(certificates))
