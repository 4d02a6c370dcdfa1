# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_dict_output', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/1678',
 expect='')
class M(nn.Module):
    def forward(self, x): return {'a': x * 2, 'b': x + 1}
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
