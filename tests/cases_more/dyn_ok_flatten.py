# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_ok_flatten', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='reshape by a flexible size', dynamic={0: {1: (4, 32)}})
class M(nn.Module):
    def forward(self, x): return x.reshape(x.shape[0], -1, 6).softmax(-1)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 3),)
