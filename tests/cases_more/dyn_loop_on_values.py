# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_loop_on_values', verdict='FAIL', culprit_op='range',
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='the number of turns of a loop is baked')
class M(nn.Module):
    def forward(self, x):
        for _ in range(int(x.abs().max()) + 1):
            x = x * 0.5 + 1
        return x
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4) * 3,)
