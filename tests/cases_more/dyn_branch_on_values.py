# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_branch_on_values', verdict='FAIL', culprit_op='x.sum() > 0',
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='the branch that the example takes is baked by tracing; export refuses')
class M(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4).abs(),)
